"""The table of a sensitivity run: a row for each layer, a column for each ratio."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from secateurs.errors import InvalidArgumentError, require
from secateurs.report.table import empty_table, fitting_tables, markdown_lines, percent
from secateurs.results import SensitivityRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Columns = list[list[str]]
"""Each a head and its cells."""


def layers_and_ratios(rows: Sequence[SensitivityRow]) -> tuple[list[str], list[float]]:
    """The layers of some rows in their order, and the ratios ascending.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show; run secateurs sensitivity first")
    return list(dict.fromkeys(row.layer for row in rows)), sorted({row.p_prune for row in rows})


def describe_sensitivity(rows: Sequence[SensitivityRow]) -> str:
    """The network, the images and what counts as right, in one line."""
    row = rows[0]
    split = f" ({row.split})" if row.split else ""
    right = f"{row.dense_top1:.1f}% right" if row.labels == "data" else "no labels read"
    return f"{row.count:,} images of {row.data or 'the loader'}{split}, dense {right}"


def print_sensitivity_table(
    rows: Sequence[SensitivityRow], console: "Console | None" = None
) -> None:
    """Print the change of top-1 accuracy, and how many images flipped either way.

    Args:
        rows: The rows of one run.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    require("rich", "a table in a terminal")
    from rich.text import Text

    from secateurs._console import make_console, print_whole

    console = console or make_console()
    rows = [row.printable() for row in rows]
    (names, sizes), columns = _columns(rows)

    def make(part: Sequence[list[str]]) -> "Table":
        table = empty_table(rows[0].model)
        table.add_column(names[0], no_wrap=True)
        for head, *_ in (sizes, *part):
            table.add_column(head, justify="right", no_wrap=True)
        for cells in zip(*(column[1:] for column in (names, sizes, *part)), strict=True):
            table.add_row(*map(Text, cells))
        return table

    for table in fitting_tables(make, columns, console):
        print_whole(console, table)
    console.print(Text(f"{_MEANING}; {describe_sensitivity(rows)}", style="dim"))


def sensitivity_markdown(rows: Sequence[SensitivityRow]) -> str:
    """The same table in Markdown, and below it what it shows.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    (names, sizes), columns = _columns([row.printable() for row in rows])
    lines = [list(line) for line in zip(names, sizes, *columns, strict=True)]
    lines.insert(1, ["---", *(["---:"] * (len(columns) + 1))])
    return f"{markdown_lines(lines)}\n\n{_MEANING}; {describe_sensitivity(rows)}.\n"


_MEANING = "change of top-1 in points where this layer alone is pruned (images lost / won)"


def _columns(rows: Sequence[SensitivityRow]) -> tuple[Columns, Columns]:
    """The two columns that name a layer, and those of the ratios."""
    layers, ratios = layers_and_ratios(rows)
    found = {(row.layer, row.p_prune): row for row in rows}
    sizes = {row.layer: f"{row.targets:,}" for row in rows}
    named = [["layer", *layers], ["weights", *(sizes[layer] for layer in layers)]]
    columns = [
        [percent(ratio), *(_cell(found.get((layer, ratio))) for layer in layers)]
        for ratio in ratios
    ]
    return named, columns


def _cell(row: SensitivityRow | None) -> str:
    return f"{row.change:+.1f} ({row.lost}/{row.won})" if row else ""
