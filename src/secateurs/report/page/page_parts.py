"""What a page is made of: sections with facts, charts and tables, before they are HTML."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from secateurs.report.number_text import interval_text


@dataclass(frozen=True)
class Fact:
    """A number that a reader should see first, and what it is the number of."""

    value: str
    label: str


@dataclass(frozen=True)
class Toggle:
    """A group of a chart's traces that a reader shows or hides together.

    Attributes:
        label: What they show.
        colour: Colour of the group, one of `secateurs.report.page.colours`.
        dashed: Whether its line is dashed.
    """

    label: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure of Plotly.

    A trace belongs to the toggle and the view whose numbers are in its ``meta``, such as
    ``{"toggle": 0, "view": 1}``; a trace without one of the two does not depend on it.

    Attributes:
        caption: What it shows, and what its shades mean.
        description: The same for a reader who cannot see it.
        figure: ``data`` and ``layout``, as Plotly takes them, in the colours of a light page.
        toggles: What can be shown and hidden.
        views: Names of the views, of which one is shown at a time.
        view_label: What the views differ in.
        height: Height in pixels.
    """

    caption: str
    description: str
    figure: dict[str, Any]
    toggles: Sequence[Toggle] = ()
    views: Sequence[str] = ()
    view_label: str = ""
    height: int = 420


@dataclass(frozen=True)
class TableCell:
    """A cell of a table: its text, and the number that it is sorted by, where it is a number."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each of its columns.

    Attributes:
        caption: What it shows.
        heads: Heads of the columns.
        rows: The cells of each row.
        note: What the numbers mean, or "".
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    note: str = ""

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[str, TableCell]], note: str = "") -> "Table":
        """A table of rows that have a cell under each head; there is at least one."""
        return cls(caption, list(rows[0]), [list(row.values()) for row in rows], note)

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return any(row[column].number is not None for row in self.rows)

    def without(self, columns: Collection[str]) -> "Table":
        """The table without some columns."""
        keep = [number for number, head in enumerate(self.heads) if head not in columns]
        rows = [[row[number] for number in keep] for row in self.rows]
        return replace(self, heads=[self.heads[number] for number in keep], rows=rows)


@dataclass(frozen=True)
class Details:
    """Names and values that few readers need, folded away: a configuration, the versions.

    Attributes:
        title: What is folded away.
        tables: The heading of each table, and its names and values.
    """

    title: str
    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]]


@dataclass(frozen=True)
class Command:
    """A command that makes results again.

    Attributes:
        text: The command.
        run: The name of the run that it makes.
    """

    text: str
    run: str


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        title: Its heading.
        headline: What the results say, in a sentence.
        notes: The images, the attack and so on.
        facts: The numbers to see first.
        charts: Figures, the most important one first.
        tables: Tables.
        commands: How to make the results again.
        details: Configurations and versions.
    """

    title: str
    headline: str
    notes: Sequence[str] = ()
    facts: Sequence[Fact] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[Command] = ()
    details: Sequence[Details] = ()


def cell(value: str | float | None, shown: str = "") -> TableCell:
    """A cell of a table; an empty one for None.

    Args:
        value: A text, or a number.
        shown: How Python writes a number; by default all digits of an integer, six of another.
    """
    if value is None or isinstance(value, str):
        return TableCell(value or "")
    shown = shown or ("{:d}" if isinstance(value, int) else "{:g}")
    return TableCell(shown.format(value), float(value))


def interval_cell(low: float, high: float, shown: str = "{:.1f}") -> TableCell:
    """A cell with an interval, sorted by its lower end."""
    return TableCell(interval_text(low, high, shown), low)
