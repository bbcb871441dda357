"""Tables of text that fit the terminal, and the same in Markdown."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateurs.errors import require
from secateurs.report.names import break_name, name_parts

if TYPE_CHECKING:
    from rich.console import Console

_WIDE, _NARROW = (2, 3), (1, 2)
"""Spaces before the first column, and between columns; the second where there is little room."""


RULE = "─"
"""What the line below the heads of columns is made of."""


@dataclass(frozen=True)
class TextTable:
    """Cells of text in columns.

    Where they are wider than the terminal, cells are wrapped: numbers at spaces, names also after
    "_", "." and the like. Where that is not enough, each row becomes a list of its cells. So no
    number and no word is cut, and no table is split in two.

    Attributes:
        heads: Heads of the columns.
        rows: The cells of each row.
        title: A line above the table in a terminal, or "".
        names: How many columns, from the left, hold names; the others hold numbers.
        groups: For each row a heading, written above the first row that has it; none if empty.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    names: int = 1
    groups: Sequence[str] = ()

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], title: str = "", names: int = 1) -> "TextTable":
        """A table of rows that have a cell under each head; there is at least one."""
        return cls(list(rows[0]), [list(row.values()) for row in rows], title, names)

    def lines(self, width: int) -> list[str]:
        """The table without its title, in lines of at most ``width`` letters if words allow it."""
        columns = list(zip(self.heads, *self.rows, strict=True))
        widths, space = [max(map(_natural, cells)) for cells in columns], _WIDE
        if _total(widths, space) > width:
            space = _NARROW
            if not self._narrow(widths, columns, width):
                return self._as_lists(width)
        head, *rows = (self._wrapped(row, widths) for row in (self.heads, *self.rows))
        cells = zip(head, *rows, strict=True)
        widths = [max(len(line) for cell in column for line in cell) for column in cells]
        found = _beside(head, widths, self.names, space, low=True)
        found.append(f" {RULE * (_total(widths, space) - 1)}")
        for number, row in enumerate(rows):
            found += self._heading(number, width)
            found += _beside(row, widths, self.names, space)
        return found

    def markdown(self, note: str = "") -> str:
        """The table in Markdown, without its title and the headings of groups.

        Args:
            note: What its numbers mean; it is written below as a sentence.
        """
        kinds = ["---"] * self.names + ["---:"] * (len(self.heads) - self.names)
        lines = [self.heads, kinds, *self.rows]
        table = "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)
        return f"{table}\n\n{note.removesuffix('.')}.\n" if note else table

    def _narrow(self, widths: list[int], columns: Sequence[Sequence[str]], width: int) -> bool:
        """Narrow the widest columns until all fit; False if they cannot."""
        least = [
            max(_least(cell, name=number < self.names) for cell in cells)
            for number, cells in enumerate(columns)
        ]
        while _total(widths, _NARROW) > width:
            wide = [number for number, own in enumerate(widths) if own > least[number]]
            if not wide:
                return False
            widths[max(wide, key=widths.__getitem__)] -= 1
        return True

    def _wrapped(self, row: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
        return [
            _wrap(cell, width, name=number < self.names)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]

    def _heading(self, number: int, width: int) -> list[str]:
        """The lines above a row: the heading of its group, where the group begins."""
        if not self.groups or self.groups[number] in self.groups[:number]:
            return []
        return ["", *(f" {part}" for part in _wrap(self.groups[number], width - 1, name=True))]

    def _as_lists(self, width: int) -> list[str]:
        heads = [_one_line(head, ", ") for head in self.heads]
        left = min(max(map(len, heads)), max(width // 2, 8))
        found: list[str] = []
        for number, row in enumerate(self.rows):
            found += [*self._heading(number, width), ""]
            for column, (head, cell) in enumerate(zip(heads, row, strict=True)):
                room = width - _total([left, 0], _NARROW)
                text = _wrap(_one_line(cell, " "), room, name=column < self.names)
                if cell:
                    label = _wrap(head, left, name=True)
                    found += _beside([label, text], [left, 0], 2, _NARROW)
        return found


def show_tables(console: "Console | None", tables: Sequence[TextTable], *notes: str) -> None:
    """Print tables with their titles, and below them what the numbers mean.

    Args:
        console: Where to print; a fresh rich console if None.
        tables: The tables.
        *notes: Lines below; empty ones are left out.

    Raises:
        FailureError: rich is not installed.
    """
    require("rich", "a table in a terminal")
    from rich.text import Text

    from secateurs._console import make_console

    console = console or make_console()
    for table in tables:
        title = _wrap(table.title, console.width, name=True) if table.title else []
        for part in title:
            console.print(Text(part, style="bold"), soft_wrap=True)
        for line in (*([""] if title else []), *table.lines(console.width), ""):
            safe = line.replace(RULE, "-") if console.options.ascii_only else line
            console.print(Text(safe), soft_wrap=True)  # as it is, also where a number is wider
    for note in filter(None, notes):
        console.print(Text(note, style="dim"))


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _one_line(cell: str, between: str) -> str:
    """A cell without line breaks; a name that was wrapped within a word is whole again."""
    return re.sub(r"(?<=[_\-./:;])\n", "", cell).replace("\n", between)


def _total(widths: Sequence[int], space: tuple[int, int]) -> int:
    return space[0] + sum(widths) + space[1] * (len(widths) - 1)


def _beside(
    cells: Sequence[list[str]],
    widths: Sequence[int],
    names: int,
    space: tuple[int, int],
    *,
    low: bool = False,
) -> list[str]:
    """Wrapped cells as lines, the first ``names`` aligned left and the others right.

    With ``low``, as heads are written, cells of fewer lines end on the last line.
    """
    depth = max(map(len, cells))
    empty = [[""] * (depth - len(cell)) for cell in cells]
    padded = [
        [*more, *cell] if low else [*cell, *more] for cell, more in zip(cells, empty, strict=True)
    ]
    lines: list[str] = []
    for parts in zip(*padded, strict=True):
        pairs = enumerate(zip(parts, widths, strict=True))
        texts = [part.ljust(w) if n < names else part.rjust(w) for n, (part, w) in pairs]
        lines.append((" " * space[0] + (" " * space[1]).join(texts)).rstrip())
    return lines


def _natural(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def _least(cell: str, *, name: bool) -> int:
    """The width of the longest part of a cell that is not wrapped."""
    parts = name_parts(cell.replace("\n", " ")) if name else cell.split()
    return max((len(part.rstrip()) for part in parts), default=0)


def _wrap(cell: str, width: int, *, name: bool) -> list[str]:
    """The lines of a cell; they are wider than ``width`` where one of its words is."""
    width = max(width, _least(cell, name=name), 1)
    found: list[str] = []
    for line in cell.split("\n"):
        if name:
            found += break_name(line, width)
        else:
            found += textwrap.wrap(line, width, break_on_hyphens=False) or [""]
    return found
