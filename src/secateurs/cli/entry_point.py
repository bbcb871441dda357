"""The entry point: runs a command, prints an error as one line, and exits with 0, 1 or 2.

Ctrl-C gives one line even while torch is imported; `secateurs.cli.early_interrupt` does that while
this module is.
"""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from secateurs._console import say, unusable_sizes
from secateurs.cli.early_interrupt import NOT_BEGUN
from secateurs.cli.interruption import INTERRUPTED, Interruption
from secateurs.cli.processes import is_first, is_one_of_several
from secateurs.cli.standard_output import discard_unwritable
from secateurs.cli.wording import in_options, warnings_as_lines
from secateurs.errors import InvalidArgumentError, Message, require

USAGE, FAILED = 2, 1
"""Exit codes."""

Work = Callable[..., Path | None]
"""Does the work; returns the folder of its results, if it has one."""
Outcome = tuple[int, str]
"""The exit code, and the message of a failure."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 asked for something that cannot be.

    Args:
        arguments: the words after the program's name, default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A character that the stream cannot encode must not be an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a stream may be broken already
                stream.reconfigure(errors="replace")  # "±" where ASCII is all
    several = words[:1] in (["sweep"], ["retrain"]) and is_one_of_several()
    with _surroundings(words):
        with Interruption(last=arguments is None and not several) as interruption:
            (code, complaint), work = _prepare(words)
            if work is not None and not several:
                code, complaint = _carry_out(words, work)
                work = None
            complaint = interruption.renamed(complaint)
        if work is not None:
            from secateurs.cli.torchrun import on_ranks

            code, complaint = on_ranks(lambda ranks: _carry_out(words, partial(work, ranks=ranks)))
        elif not is_first():
            complaint = ""  # rank 0 says the same
        if complaint:
            say(f"secateurs: {' '.join(complaint.split())}")
    discard_unwritable()
    sys.exit(code)


@contextmanager
def _surroundings(words: Sequence[str]) -> Generator[None]:
    """Ignore invalid sizes of the terminal, replace closed streams, and print warnings as lines."""
    unusable = {name: os.environ.pop(name) for name in unusable_sizes()}
    try:
        with ExitStack() as stack:
            for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
                if stream is None:  # closed by the parent process; other libraries write to it
                    nowhere = stack.enter_context(Path(os.devnull).open("w"))
                    stack.enter_context(redirect(nowhere))
            stack.enter_context(warnings_as_lines(lambda message: _worded(message, words)))
            yield
    finally:
        os.environ.update(unusable)


def _prepare(words: Sequence[str]) -> tuple[Outcome, Work | None]:
    """Parse the words, check what can be checked at once, and import the command."""
    try:
        require("cyclopts", "the command line")
        from secateurs.cli.parser import parse

        work = parse(words or ["--help"])()
    except KeyboardInterrupt:
        return (NOT_BEGUN, INTERRUPTED), None
    except Exception as error:
        return _failure(error, words), None
    # Without words, help was printed, but nothing was done.
    return (0 if words else USAGE, ""), work


def _carry_out(words: Sequence[str], work: Work) -> Outcome:
    resumes = words[0] not in ("prune", "report", "compare")
    try:
        work()
    except KeyboardInterrupt:
        return FAILED, INTERRUPTED + "; the same command goes on where it was" * resumes
    except Exception as error:
        return _failure(error, words)
    return 0, ""


def _worded(message: Message, words: Sequence[str]) -> str:
    """An error or a warning, with the options of the command in place of arguments."""
    parser: Any = sys.modules.get("secateurs.cli.parser")  # None if cyclopts is not installed
    return in_options(message, parser.options_of(words[0]) if parser and words else ())


def _failure(error: Exception, words: Sequence[str]) -> Outcome:
    if isinstance(error, Message):
        code = USAGE if isinstance(error, InvalidArgumentError) else FAILED
        return code, _worded(error, words)
    if os.environ.get("SECATEURS_TRACEBACK"):
        for line in traceback.format_exc().splitlines():
            say(line)
    text = " ".join(str(error).split()) or "no further message"
    if _is_out_of_memory(error, text):
        return FAILED, (
            "out of memory: write a smaller --batch-size or --img-size, or another --device"
        )
    if isinstance(error, OSError) and error.filename:
        return FAILED, f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return FAILED, f"cannot write: {error.strerror}"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return FAILED, f"{text}: write the whole path instead of ~, or set HOME"
    return FAILED, (
        f"unforeseen {type(error).__name__}: {text} (SECATEURS_TRACEBACK=1 shows where)"
    )


def _is_out_of_memory(error: Exception, text: str) -> bool:
    """Whether memory ran out, of a GPU or of the machine, where torch raises a RuntimeError."""
    torch: Any = sys.modules.get("torch")
    of_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return of_gpu or isinstance(error, MemoryError) or "can't allocate memory" in text
