"""How much a command prints, and the trackers that log its rows."""

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secateurs._console import silence
from secateurs.cli.option_types import Several, panel
from secateurs.cli.standard_output import Stdout
from secateurs.errors import require
from secateurs.results.run_command import RunCommand, running

if TYPE_CHECKING:
    from secateurs.results import Record

Work = Callable[..., Path | None]
"""Does the work of a command, and returns the folder of its results, if it has one."""

Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]
"""As `secateurs.report.trackers` has them, which is imported when one is asked for."""


@panel("What is said", 7)
@dataclass(frozen=True, kw_only=True)
class Printing:
    """How much is printed, and which trackers log the rows.

    Args:
        quiet: Say nothing on stderr but warnings and errors.
        json: Print one line of JSON on stdout, with the folder, its files and the outcome; the
            table goes to stderr.
        log_to: Log the rows to tensorboard, trackio, wandb or mlflow, through their own packages.
    """

    quiet: bool = False
    json: bool = False
    log_to: Several[Tracker] = ()


def as_asked(command: RunCommand, printing: Printing, work: Work) -> Work:
    """The work, printing as much as was asked for, with the command kept in its folder.

    The rows of a retraining are logged by the work itself, after each epoch.

    Args:
        command: The command.
        printing: What was asked for.
        work: Returns the folder of its results, or None where another rank reports.
    """

    def run(**options: Any) -> Path | None:
        with ExitStack() as stack:
            stack.enter_context(running(command))
            if printing.quiet:
                stack.enter_context(silence())
            if printing.json:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(nowhere if printing.quiet else sys.stderr))
            check_trackers(printing.log_to)
            folder = work(**options)
            if folder is not None and command.name != "retrain":
                log_folder(folder, printing.log_to)
        if folder is not None and printing.json:
            from secateurs.cli.json_summary import summary_line

            with Stdout("the summary", written=True) as stdout:
                stdout.write(summary_line(command.name, folder))
        return folder

    return run


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Refuse trackers whose packages are not installed, before the work begins.

    Raises:
        FailureError: One is not.
    """
    for tracker in trackers:
        require(tracker, f"logging to {tracker}", extra=tracker)


@contextmanager
def logging_to(
    trackers: Sequence[Tracker], folder: Path, config: Mapping[str, Any]
) -> Generator["Callable[[Sequence[Record]], None]"]:
    """Begin a run in each tracker; yields a function that logs rows in all of them."""
    with ExitStack() as stack:
        logs = [stack.enter_context(_opened(name, folder, config)) for name in trackers]

        def log(rows: "Sequence[Record]") -> None:
            for each in logs:
                each(rows)

        yield log


def _opened(tracker: Tracker, folder: Path, config: Mapping[str, Any]) -> Any:
    from secateurs.report.trackers import open_tracker

    return open_tracker(tracker, folder, config)


def log_folder(folder: Path, trackers: Sequence[Tracker]) -> None:
    """Log all rows of a folder."""
    if trackers:
        from secateurs.results import read_any_rows
        from secateurs.results.config import read_config
        from secateurs.results.folder import CONFIG

        with logging_to(trackers, folder, read_config(folder / CONFIG) or {}) as log:
            log(read_any_rows(folder))
