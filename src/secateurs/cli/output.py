"""What a command prints when its work is done: a part that cannot be shown costs no other part."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import typer
from rich.console import Console

from secateurs._console import make_console, say
from secateurs.errors import FailureError
from secateurs.report.figure import DrawingError


class Stdout:
    """Text on stdout, whose reader may leave (``| head``) and whose disk may be full.

    The first text that cannot be written ends the printing and nothing else. The block that uses
    this goes on, draws its plots, and is told of it when it ends: with exit code 1, without a word
    where a reader left.
    """

    def __init__(self) -> None:
        self._lost: OSError | None = None

    def table(self, print_it: Callable[[Console], None]) -> None:
        """Print what a function prints on a console."""
        console = make_console()
        with console.capture() as captured:
            print_it(console)
        self.write(captured.get())

    def write(self, text: str) -> None:
        """Print text as it is; names in it must be safe already."""
        if self._lost is not None or sys.stdout is None:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            self._lost = error
            _discard_the_rest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or self._lost is None:
            return
        if isinstance(self._lost, BrokenPipeError):
            raise typer.Exit(1)
        raise FailureError(
            f"cannot write to stdout ({self._lost.strerror}); the files of this command are whole"
        ) from self._lost


def drawn(draw: Callable[[], list[Path]]) -> list[Path]:
    """The files of a plot; where it cannot be drawn a line says why, since rows are what counts."""
    try:
        return draw()
    except DrawingError as error:
        say(f"no plot: {error}")
    except MemoryError:
        say("no plot: out of memory; secateurs report draws it from the rows")
    return []


def _discard_the_rest() -> None:
    """What is still in the buffer cannot be written either, and Python would say so at the end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
