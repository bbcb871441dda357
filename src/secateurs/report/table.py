"""Tables of a sweep, for a terminal and in Markdown."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from secateurs.errors import require
from secateurs.report.series import Series, describe, split_series
from secateurs.results import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# From this many images on, accuracies have two significant decimals.
_FINE = 10_000
_NEARLY_ALL = 0.9
_CELL = 9  # letters, as in "100.0 ±0.1"
_GUTTER = 3

T = TypeVar("T")


def print_table(rows: Sequence[Row], console: "Console | None" = None, note: str = "") -> None:
    """Print top-1 accuracy in percent.

    One series (one model, granularity, scope, ...) gives a table with a row for each ratio, and the
    interval, top-5 and the loss. Several series give a table for each model, with a row for each
    ratio and a column for each series. In a narrow terminal, the columns are split over several
    tables; a single column may be wider than the terminal, so that no digits are lost.

    Args:
        rows: The rows, in any order.
        console: Where to print; a fresh rich console by default.
        note: A line to print below the table.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    require("rich", "a table in a terminal")
    from rich.text import Text

    from secateurs._console import make_console, print_whole

    console = console or make_console()
    every = split_series(rows)
    said = "; ".join(filter(None, (describe(rows), "" if note else _coverage(rows))))
    tables: list[Table] = []
    if len(every) == 1:
        head, *columns = _columns(every[0])
        tables = fitting_tables(
            lambda part: _table(every[0].model, [head, *part]), columns, console
        )
    else:
        said = f"top-1 in percent, ± half of its 95% interval; {said}"
        for model in dict.fromkeys(series.dense_label for series in every):
            group = [series for series in every if series.dense_label == model]
            tables += [_compared(model, part) for part in _parts(group, console.width)]
    for table in tables:
        print_whole(console, table)
    console.print(Text(said, style="dim"))
    if note:
        console.print(Text(note))


def markdown_table(rows: Sequence[Row]) -> str:
    """The top-1 accuracies as a Markdown table: a row for each series, a column for each ratio.

    Returns:
        The table, an empty line, and a line that explains the numbers.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    every = split_series(rows)
    ratios = sorted({row.p_prune for series in every for row in series.rows})
    extra = ["setting"] if any(_other_fields(series) for series in every) else []
    header = ["model", "granularity", "scope", *extra, *map(percent, ratios)]
    lines = [header, ["---"] * (len(header) - len(ratios)) + ["---:"] * len(ratios)]
    for series in every:
        one = series.rows[-1]
        by_ratio = {row.p_prune: row for row in series.rows}
        lines.append(
            [
                *(series.dense_label, one.granularity, one.scope),
                *([", ".join(_other_fields(series))] if extra else []),
                *(accuracy(by_ratio[ratio]) if ratio in by_ratio else "" for ratio in ratios),
            ]
        )
    table = markdown_lines(lines)
    widest = max(_half_width(row) for series in every for row in series.rows)
    said = "; ".join(filter(None, (describe(rows), _coverage(rows))))
    note = f"Top-1 accuracy in percent, 95% interval at most ±{widest:.1f}; {said}."
    return f"{table}\n\n{note}\n"


def percent(ratio: float) -> str:
    """A ratio as the shortest exact percentage: 0.3 is "30%", 0.125 is "12.5%"."""
    return f"{round(100 * ratio, 6):g}%"


def accuracy(row: Row) -> str:
    """Top-1 with the decimals that are significant for the number of images."""
    return f"{row.top1:.{2 if row.count >= _FINE else 1}f}"


def _other_fields(series: Series) -> list[str]:
    """The fields in which the series differs, besides model, granularity and scope."""
    return [text for name, text in series.method.items() if name not in ("granularity", "scope")]


def _coverage(rows: Sequence[Row]) -> str:
    """The share of the weights that compete, if all rows have the same and it is below 90%."""
    shares = {row.targets / (1e6 * row.param_count) for row in rows if row.param_count > 0}
    share = shares.pop() if len(shares) == 1 else 1.0
    return f"{100 * share:.2g}% of the weights compete" if share < _NEARLY_ALL else ""


def _half_width(row: Row) -> float:
    return (row.top1_high - row.top1_low) / 2


def markdown_lines(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table."""
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def empty_table(title: str | None = None) -> "Table":
    """A table for a terminal, with an optional title above it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head = None if title is None else Text(title, style="bold")
    return Table(title=head, title_justify="left", box=box.SIMPLE_HEAD)


def fitting_tables(
    make: "Callable[[Sequence[T]], Table]", columns: Sequence[T], console: "Console"
) -> list["Table"]:
    """One table, or where the terminal is narrow several with some of the columns each.

    Args:
        make: Makes a table of some columns.
        columns: The columns.
        console: The terminal.
    """
    from secateurs._console import table_width

    tables: list[Table] = []
    part: list[T] = []
    for column in columns:
        wider = make([*part, column])
        if part and table_width(console, wider) <= console.width:
            part.append(column)
            tables[-1] = wider
        else:
            part = [column]
            tables.append(make(part))
    return tables


def _columns(series: Series) -> list[list[str]]:
    """The columns of a series, each a head and its cells."""
    draws = any(row.draws > 1 for row in series.rows)
    heads = ["asked", "pruned", "top-1", "95% interval", *(["std"] if draws else []), "change"]
    lines = [[*heads, "top-5", "loss"]]
    for row in series.rows:
        change = row.top1 - series.dense.top1 if series.dense else math.nan
        lines.append(
            [
                percent(row.p_prune),
                f"{100 * row.achieved:.1f}%",
                accuracy(row),
                f"{row.top1_low:.1f} to {row.top1_high:.1f}",
                *([f"{row.top1_std:.2f}"] if draws else []),
                "" if row is series.dense or math.isnan(change) else f"{change:+.1f}",
                f"{row.top5:.1f}",
                f"{row.loss:.3f}" if row.loss < 1000 else f"{row.loss:.2g}",
            ]
        )
    return [list(column) for column in zip(*lines, strict=True)]


def _table(title: str, columns: Sequence[Sequence[str]]) -> "Table":
    table = empty_table(title)
    for head, *_ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _compared(model: str, group: Sequence[Series]) -> "Table":
    from rich.text import Text

    table = empty_table(model)
    table.add_column("asked", justify="right", no_wrap=True, vertical="bottom")
    for series in group:
        table.add_column(
            Text("\n".join(series.method.values()) or "top-1"), justify="right", no_wrap=True
        )
    ratios = sorted({row.p_prune for series in group for row in series.rows})
    for ratio in ratios:
        cells: list[Text] = []
        for series in group:
            row = next((row for row in series.rows if row.p_prune == ratio), None)
            cells.append(_cell(row))
        table.add_row(percent(ratio), *cells)
    return table


def _cell(row: Row | None) -> "Text":
    from rich.text import Text

    if row is None:
        return Text("")
    return Text.assemble(accuracy(row), (f" ±{_half_width(row):.1f}", "dim"))


def _parts(group: list[Series], width: int) -> list[list[Series]]:
    """Split the series into groups whose columns fit into the width."""
    parts: list[list[Series]] = [[]]
    used = start = 10
    for series in group:
        own = max([_CELL, *map(len, series.method.values())]) + _GUTTER
        if parts[-1] and used + own > width:
            parts.append([])
            used = start
        parts[-1].append(series)
        used += own
    return parts
