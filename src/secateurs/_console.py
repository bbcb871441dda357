"""Where text for people goes: a terminal of any size, a file, or a pipe that nobody reads."""

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from secateurs._io.text import printable
from secateurs.errors import require

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NARROWEST, WIDEST, USUAL = 20, 2000, 80
"""Columns: what is below the first or above the second is no size, and is taken for the third."""

SIZES = ("COLUMNS", "LINES", "JUPYTER_COLUMNS", "JUPYTER_LINES", "TERMINAL_WIDTH")
"""Variables in which a size may stand; the last one is that of the parser's help."""


def make_console(*, stderr: bool = False) -> "Console":
    """A console on stdout or stderr, 80 columns wide where the terminal reports no usable size.

    Its reader may leave: the work goes on, and the rest is not shown.

    Raises:
        FailureError: rich is not installed.
    """
    require("rich", "text for a terminal")
    from rich.console import Console

    class LeavableConsole(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    environment = {n: value for n, value in os.environ.items() if n not in unusable_sizes()}
    console = LeavableConsole(stderr=stderr, _environ=environment)
    if not NARROWEST <= console.width <= WIDEST:
        console.width = USUAL
    return console


def unusable_sizes() -> list[str]:
    """The variables of the environment in which something stands that is no size."""
    return [name for name in SIZES if name in os.environ and not _is_size(name, os.environ[name])]


def say(line: str) -> None:
    """Print one line on stderr, unbroken whatever the terminal's width; names in it are made safe.

    What cannot be printed (a full disk under a log file, a closed pipe) stops nothing.
    """
    with suppress(OSError, ValueError, AttributeError):  # closed; there is none
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def table_width(console: "Console", table: "Table") -> int:
    """The columns of a terminal that a table needs to show all of its text."""
    return console.measure(table, options=console.options.update(max_width=WIDEST)).maximum


def print_whole(console: "Console", table: "Table") -> None:
    """Print a table with all of its digits: wider than the terminal where it has to be."""
    from rich.segment import SegmentLines

    width = table_width(console, table)
    if width <= console.width:
        console.print(table)
        return
    lines = console.render_lines(table, console.options.update(max_width=width), pad=False)
    console.print(SegmentLines(lines, new_lines=True), crop=False)


def _is_size(name: str, text: str) -> bool:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return False
    return int(text) > 0 if "LINES" in name else NARROWEST <= int(text) <= WIDEST
