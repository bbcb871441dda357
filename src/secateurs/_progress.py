"""The progress of long work: a bar in a terminal, elsewhere a line about once a minute."""

import importlib.util
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from secateurs._console import is_silent, make_console, say
from secateurs._io.text import printable
from secateurs.errors import FailureError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

Unit = Literal["images", "image steps", "epochs", "networks", "settings", "timings", "bytes"]

EVERY = 60.0
"""Seconds between two lines where there is no bar."""


class Bar:
    """Shows the progress of long work; this base class shows messages only."""

    def advance(self, steps: int) -> None:
        """Add steps that were done."""

    def skip(self, steps: int) -> None:
        """Add steps that were done in an earlier run, which do not count for the speed."""
        self.advance(steps)

    def say(self, text: str) -> None:
        """Print a line on stderr, above the bar if there is one; escape what is not printable."""
        say(text)


class _Drawn(Bar):
    """A bar that is redrawn in a terminal or notebook."""

    def __init__(self, progress: "Progress", task: "TaskID"):
        self._progress, self._task = progress, task

    def advance(self, steps: int) -> None:
        self._progress.advance(self._task, steps)

    def say(self, text: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text(printable(text)))


class _Lines(Bar):
    """A line about once a minute: what is done, the speed, and the time left."""

    def __init__(self, what: str, total: int | None, unit: Unit, per: int, every: float):
        self._what, self._total, self._unit, self._per = what, total, unit, per
        self._every, self._done, self._counted = every, 0, 0
        self._then = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        self._counted += steps
        now = time.monotonic()
        if self._counted and now - self._then >= self._every:
            say(self._line(self._counted / max(now - self._then, 1e-9)))
            self._then, self._counted = now, 0

    def skip(self, steps: int) -> None:
        self._done += steps

    def _line(self, rate: float) -> str:
        done, speed = self._amount(self._done), self._amount(rate, digits=3)
        if self._total is None:
            return f"{self._what}: {done}{self._name}, {speed} a second"
        left = _duration(max(self._total - self._done, 0) / rate)
        share = f"{done} of {self._amount(self._total)}{self._name}"
        percent = 100 * self._done / max(self._total, 1)
        return f"{self._what}: {share} ({percent:.0f}%), {speed} a second, {left} left"

    @property
    def _name(self) -> str:
        return "" if self._unit == "bytes" else f" {self._unit}"

    def _amount(self, steps: float, digits: int = 0) -> str:
        if self._unit == "bytes":
            return bytes_text(steps)
        number = steps / self._per
        return f"{number:,.0f}" if not digits or number >= 100 else f"{number:.2g}"


@contextmanager
def progress_bar(
    what: str,
    total: int | None,
    *,
    show: bool | None = None,
    unit: Unit = "images",
    per: int = 1,
    every: float = EVERY,
) -> Generator[Bar]:
    """Show the progress of long work on stderr.

    In a terminal, and in a notebook that has ipywidgets, it is a bar, drawn by rich; elsewhere a
    line with what is done, the speed and the time left, about once a minute.

    Args:
        what: the text before it.
        total: the number of steps, None if unknown.
        show: False shows no progress.
        unit: the unit of the numbers that are shown.
        per: steps for each unit.
        every: seconds between two lines.

    Yields:
        The bar, whose ``advance`` is to be called after each step.
    """
    if show is False or is_silent():
        yield Bar()
        return
    console = None
    with suppress(FailureError):  # rich is not installed
        console = make_console(stderr=True)
    if console is None or not _can_draw(console):
        yield _Lines(what, total, unit, per, every)
    else:
        from rich.progress import Progress

        with Progress(*_columns(unit), console=console, transient=True) as progress:
            yield _Drawn(progress, progress.add_task(what, total=total))


def bytes_text(size: float) -> str:
    """A number of bytes with three digits or so: "512 B", "1.2 GB"."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if round(value, 0 if unit == "B" else 1) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _can_draw(console: "Console") -> bool:
    """Whether a line can be redrawn: not in a file, a pipe, or a dumb terminal."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_interactive


def _columns(unit: Unit) -> "list[ProgressColumn]":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counted = (
        [DownloadColumn(), TransferSpeedColumn()]
        if unit == "bytes"
        else [MofNCompleteColumn(), TimeElapsedColumn()]
    )
    left = [TextColumn("left"), TimeRemainingColumn()]
    return [TextColumn("{task.description}"), BarColumn(), *counted, *left]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min"
