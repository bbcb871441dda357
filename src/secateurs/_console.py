"""Text for people, on a terminal of any size, in a file, or in a pipe that nobody reads."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from secateurs._io.text import printable
from secateurs.errors import require

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST, WIDEST, USUAL = 20, 2000, 80
"""Columns: a reported width below the first or above the second is replaced by the third."""

SIZES = ("COLUMNS", "LINES", "JUPYTER_COLUMNS", "JUPYTER_LINES", "TERMINAL_WIDTH")
"""Environment variables for the size of a terminal; the last one is read by the parser's help."""


def make_console(*, stderr: bool = False) -> "Console":
    """A console on stdout or stderr, 80 columns wide where the terminal reports no usable size.

    When the reader of a pipe has closed it, later text is dropped, and the work goes on.

    Raises:
        FailureError: rich is not installed.
    """
    require("rich", "text for a terminal")
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    environment = {n: value for n, value in os.environ.items() if n not in unusable_sizes()}
    console = PipeConsole(stderr=stderr, _environ=environment)
    if not NARROWEST <= console.width <= WIDEST:
        console.width = USUAL
    return console


def unusable_sizes() -> list[str]:
    """The environment variables of `SIZES` whose value is not a size."""
    return [name for name in SIZES if name in os.environ and not _is_size(name, os.environ[name])]


_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silence() -> Generator[None]:
    """Within the block, print no line on stderr but those that must be read."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def is_silent() -> bool:
    """Whether this is within `silence`."""
    return _SILENT.get()


def say(line: str, *, always: bool = False) -> None:
    """Print one line on stderr, not wrapped; unprintable characters in it are escaped.

    A failure to print (a closed pipe, a log file on a full disk) is ignored.

    Args:
        line: the line.
        always: whether it is printed within `silence`, too: a warning or an error.
    """
    if is_silent() and not always:
        return
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or None
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def _is_size(name: str, text: str) -> bool:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return False
    return int(text) > 0 if "LINES" in name else NARROWEST <= int(text) <= WIDEST
