"""What a command prints when its work is done: a part that cannot be shown costs no other part."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from secateurs._console import make_console, say
from secateurs.errors import FailureError

if TYPE_CHECKING:
    from rich.console import Console


class Stdout:
    """Text on stdout, whose reader may leave (``| head``) and whose disk may be full.

    The first text that cannot be written ends the printing and nothing else: the block that uses
    this goes on and draws its plots. Where a reader left, that is all: he has seen what he
    wanted. Any other reason is an error when the block ends.

    Args:
        what: the text, as that error calls it.
        written: whether the command has written files, which the error says are safe.
    """

    def __init__(self, what: str = "the table", *, written: bool = False):
        self._lost: OSError | None = None
        self._what, self._written = what, written

    def table(self, print_it: "Callable[[Console], None]") -> None:
        """Print what a function prints on a console."""
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
        """Print text as it is; names in it must be safe already."""
        if self._lost is not None:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            self._lost = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or self._lost is None or isinstance(self._lost, BrokenPipeError):
            return
        files = "; the files are written" if self._written else ""
        raise FailureError(
            f"cannot print {self._what}: {self._lost.strerror or self._lost}{files}"
        ) from self._lost


def drop_what_is_stuck() -> None:
    """Empty streams that cannot be written: else Python complains of them as it ends."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def drawn(draw: Callable[[], list[Path]]) -> list[Path]:
    """The files of a plot; where it cannot be drawn a line says why, since rows are what counts."""
    from secateurs.report.figure import DrawingError

    try:
        return draw()
    except DrawingError as error:
        say(f"no plot: {error}")
    except MemoryError:
        say("no plot: out of memory; secateurs report draws it from the rows")
    return []
