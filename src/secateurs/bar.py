"""A progress bar that is quiet where nobody looks."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar:
    """What long work reports to.

    Args:
        progress: rich's display.
        task: the task in it.
    """

    def __init__(self, progress: Progress, task: TaskID):
        self._progress, self._task = progress, task

    def advance(self, steps: int) -> None:
        """Move on by so many steps."""
        self._progress.advance(self._task, steps)

    def say(self, text: str) -> None:
        """Print a line above the bar, on stderr, also where there is no bar."""
        self._progress.console.print(text, highlight=False)


@contextmanager
def progress_bar(what: str, total: int | None, *, show: bool | None = None) -> Generator[Bar]:
    """Show a bar on stderr.

    Args:
        what: the text before the bar.
        total: steps to the end, None if unknown.
        show: default only in a terminal.

    Yields:
        The bar to advance.
    """
    console = Console(stderr=True)
    shown = console.is_terminal if show is None else show
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        yield Bar(progress, progress.add_task(what, total=total))
