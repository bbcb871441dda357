"""How much a command prints, its outcome as one line of JSON, and the trackers of its rows."""

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from secateurs._console import silence
from secateurs._io.json_objects import read_object_file
from secateurs.cli.option_types import Several, panel
from secateurs.cli.standard_output import Stdout
from secateurs.errors import require
from secateurs.results import Record, RetrainRow, TransferRow, read_any_rows
from secateurs.results.config import read_config
from secateurs.results.folder import CONFIG
from secateurs.results.formats import jsonl_text
from secateurs.results.run_command import RunCommand, running

BUDGET = "budget.json"
"""Name of the file that a budget writes into its folder."""

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
) -> Generator[Callable[[Sequence[Record]], None]]:
    """Begin a run in each tracker; yields a function that logs rows in all of them."""
    from secateurs.report.trackers import open_tracker

    with ExitStack() as stack:
        logs = [stack.enter_context(open_tracker(name, folder, config)) for name in trackers]

        def log(rows: Sequence[Record]) -> None:
            for each in logs:
                each(rows)

        yield log


def log_folder(folder: Path, trackers: Sequence[Tracker]) -> None:
    """Log all rows of a folder."""
    if trackers:
        with logging_to(trackers, folder, read_config(folder / CONFIG) or {}) as log:
            log(read_any_rows(folder))


def summary_line(command: str, folder: Path) -> str:
    """One line with the command, the folder, its files, and the rows that are its outcome.

    Of a retraining these are the scores on test images, or all rows where it has none; of a
    transfer the rows of the last step, without the outcome of each image; of a budget what
    budget.json holds.
    """
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if command == "budget":
        rows = [read_object_file(folder / BUDGET)]
    else:
        rows = [_shown(row) for row in outcome_rows(read_any_rows(folder))]
    return jsonl_text([{"command": command, "folder": str(folder), "files": files, "rows": rows}])


def outcome_rows(rows: Sequence[Record]) -> Sequence[Record]:
    """The rows that are the outcome of a run."""
    scores = [row for row in rows if isinstance(row, RetrainRow) and row.split != "validation"]
    if scores:
        return scores
    steps = [row.step for row in rows if isinstance(row, TransferRow)]
    return [row for row in rows if not isinstance(row, TransferRow) or row.step == max(steps)]


def _shown(row: Record) -> dict[str, Any]:
    return {name: value for name, value in row.as_dict().items() if not name.endswith("_hits")}
