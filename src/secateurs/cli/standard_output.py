"""Results on stdout: text that cannot be printed does not stop the rest of a command."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from secateurs._console import make_console, say
from secateurs.errors import FailureError

if TYPE_CHECKING:
    from rich.console import Console


class Stdout:
    """Text on stdout, which may be a closed pipe (``| head``) or a file on a full disk.

    After the first failure nothing more is printed, but the block goes on, to draw its plots. A
    closed pipe is no error, since its reader has seen enough; any other failure is one, raised at
    the end of the block.

    Args:
        what: the name of the text in that error.
        written: whether the command has written files; the error then says so.
    """

    def __init__(self, what: str = "the table", *, written: bool = False):
        self._lost: OSError | None = None
        self._what, self._written = what, written

    def table(self, print_it: "Callable[[Console], object]") -> None:
        """Print the output of a function that prints on a console."""
        if self._lost is not None:
            return
        console = make_console()
        try:
            with console.capture() as captured:
                print_it(console)
        except OSError as error:  # rich writes an empty text, which an unbuffered stdout passes on
            self._lost = error
            return
        self.write(captured.get())

    def write(self, text: str) -> None:
        """Print text as it is; unprintable characters must be escaped already."""
        if self._lost is not None:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            self._lost = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None or self._lost is None or isinstance(self._lost, BrokenPipeError):
            return
        files = "; the files are written" if self._written else ""
        raise FailureError(
            f"cannot print {self._what}: {self._lost.strerror or self._lost}{files}"
        ) from self._lost


def discard_unwritable() -> None:
    """Discard the text in streams that cannot be written, else Python prints an error at exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def drawn(draw: Callable[[], list[Path]]) -> list[Path]:
    """Draw a plot and return its files; if that fails print why, since the rows are on disk."""
    from secateurs.report.figure import DrawingError

    try:
        return draw()
    except DrawingError as error:
        say(f"no plot: {error}")
    except MemoryError:
        say("no plot: out of memory; secateurs report draws it from the rows")
    return []
