"""Entry point: one line for an error, exit code 0, 1 or 2."""

import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer

from secateurs._console import say, unusable_sizes
from secateurs._validation import nearest
from secateurs._version import __version__
from secateurs.cli.coverage_text import coverage_warnings
from secateurs.cli.interruption import INTERRUPTED, Interruption
from secateurs.cli.options import refuse_empty, spelled_out
from secateurs.cli.prune_command import SEVERAL as SEVERAL_NAMES
from secateurs.cli.prune_command import prune
from secateurs.cli.report_command import report
from secateurs.cli.standard_output import Stdout, drop_what_is_stuck
from secateurs.cli.sweep_command import SEVERAL, sweep
from secateurs.cli.torchrun import is_launched, on_ranks
from secateurs.cli.transfer_command import SEVERAL as SEVERAL_NETWORKS
from secateurs.cli.transfer_command import transfer
from secateurs.cli.wording import in_options
from secateurs.errors import InvalidArgumentError, SecateursError
from secateurs.evaluation.ranks import Ranks

USAGE, FAILED = 2, 1
_INTERRUPTED = 130  # what newer versions of the parser turn Ctrl-C into; older ones raise Abort


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 asked for something that cannot be.

    Args:
        arguments: the words after the program's name, default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # What cannot be shown is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a stream may be broken already
                stream.reconfigure(errors="replace")  # "±" where ASCII is all
    with _surroundings():
        if words[:1] == ["sweep"] and is_launched():
            code, complaint = on_ranks(lambda ranks: _run(words, ranks))
        else:
            code, complaint = _run_alone(words, last=arguments is None)
        if complaint:
            say(f"secateurs: {' '.join(complaint.split())}")
    drop_what_is_stuck()
    sys.exit(code)


@contextmanager
def _surroundings() -> Generator[None]:
    """Sizes of a terminal that are none do not count, and a warning is one line."""
    unusable = {name: os.environ.pop(name) for name in unusable_sizes()}
    try:
        with ExitStack() as stack:
            for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
                if stream is None:  # it was closed by who started this; others write to it, too
                    nowhere = stack.enter_context(Path(os.devnull).open("w"))
                    stack.enter_context(redirect(nowhere))
            stack.enter_context(warnings.catch_warnings())
            warnings.showwarning = _say_warning
            yield
    finally:
        os.environ.update(unusable)


def _say_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    say(f"{category.__name__}: {in_options(' '.join(str(message).split()))}")


def _run_alone(words: list[str], *, last: bool) -> tuple[int, str]:
    """Run a command in the one process that it has."""
    with Interruption(last=last) as interruption:
        try:
            code, complaint = _run(words)
        except KeyboardInterrupt:  # a later one than that which `_run` says
            code, complaint = FAILED, _interrupted(words)
        return code, interruption.renamed(complaint)


def _interrupted(words: list[str]) -> str:
    resumes = words[:1] in (["sweep"], ["transfer"])
    return INTERRUPTED + "; the same command goes on where it was" * resumes


def _run(words: list[str], ranks: Ranks | None = None) -> tuple[int, str]:
    """The exit code, and what to complain about."""
    try:
        lists = {"prune": SEVERAL_NAMES, "transfer": SEVERAL_NETWORKS}
        several = lists.get(words[0] if words else "", SEVERAL)
        refuse_empty(words, several)
        asked = spelled_out(words, several) or ["--help"]
        with coverage_warnings(_say if ranks is None or ranks.is_first else _say_nothing):
            code = _app()(asked, prog_name="secateurs", standalone_mode=False, obj=ranks)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
    except SecateursError as error:
        code = USAGE if isinstance(error, InvalidArgumentError) else FAILED
        return code, in_options(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return FAILED, _interrupted(words)
    except SystemExit:  # rich leaves like this where nobody reads the help
        code = 0
    except Exception as error:
        return _unforeseen(error)
    if not words:
        return USAGE, ""  # help was printed, but nothing was done
    return code if isinstance(code, int) else 0, ""


def _say(text: str) -> None:
    say(f"secateurs: {text}")


def _say_nothing(text: str) -> None:
    """On ranks that leave it to the first one."""


def _app() -> typer.Typer:
    app = typer.Typer(
        name="secateurs",
        help="Exact weight pruning for PyTorch: sweeps, adversarial transfer, checkpoints.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command()(sweep)
    app.command()(transfer)
    app.command()(prune)
    app.command()(report)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        with Stdout("the version") as stdout:
            stdout.write(f"secateurs {__version__}\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


def _unforeseen(error: Exception) -> tuple[int, str]:
    """The parser's own errors, and what nobody foresaw."""
    if hasattr(error, "format_message"):
        return USAGE, _usage(error)
    if os.environ.get("SECATEURS_TRACEBACK"):
        for line in traceback.format_exc().splitlines():
            say(line)
    if isinstance(error, torch.OutOfMemoryError):
        return FAILED, (
            "out of memory: write a smaller --batch-size or --img-size, or another --device"
        )
    if isinstance(error, OSError) and error.filename:
        return FAILED, f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return FAILED, f"cannot write: {error.strerror}"
    text = " ".join(str(error).split()) or "no further message"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return FAILED, f"{text}: write the whole path in the place of ~, or set HOME"
    return FAILED, (
        f"unforeseen {type(error).__name__}: {text} (SECATEURS_TRACEBACK=1 shows where)"
    )


def _usage(error: Any) -> str:
    """What the parser did not understand, and where to look."""
    possible = getattr(error, "possibilities", None)
    if possible:
        text = error.message + nearest(error.option_name, possible)
    else:
        text = error.format_message().rstrip(".")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "secateurs"
    return f"{text}; see {command} --help"
