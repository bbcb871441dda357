"""Tables of a sweep, for a terminal and in Markdown."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from secateurs.report.number_text import accuracy, interval_text, percent, rounded_percent
from secateurs.report.series import Series, describe, split_series
from secateurs.report.text_table import TextTable, markdown_lines, show_tables
from secateurs.results import Row

if TYPE_CHECKING:
    from rich.console import Console

_NEARLY_ALL = 0.9
_AS_ASKED = 0.01  # what rounding to whole units may change


def print_table(rows: Sequence[Row], console: "Console | None" = None, note: str = "") -> None:
    """Print top-1 accuracy in percent.

    One series (one model, granularity, scope, ...) gives a table with a row for each ratio, and the
    interval, top-5 and the loss. Several series give a table for each model, with a row for each
    ratio and a column for each series.

    Args:
        rows: The rows, in any order.
        console: Where to print; a fresh rich console by default.
        note: A line to print below the table.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    every = split_series(rows)
    said = "; ".join(filter(None, (describe(rows), "" if note else _coverage(rows))))
    if len(every) == 1:
        tables = [_table_of_one(every[0])]
    else:
        shares = any(_other_share(row) for series in every for row in series.rows)
        shares_said = ", in parentheses the weights pruned, where not as asked" * shares
        said = f"top-1 in percent, ± half of its 95% interval{shares_said}; {said}"
        models = dict.fromkeys(series.dense_label for series in every)
        tables = [
            _compared(model, [one for one in every if one.dense_label == model]) for model in models
        ]
    show_tables(console, tables, said, note)


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


def _table_of_one(series: Series) -> TextTable:
    draws = any(row.draws > 1 for row in series.rows)
    heads = ["asked", "pruned", "top-1", "95% interval", *(["std"] if draws else []), "change"]
    lines: list[list[str]] = []
    for row in series.rows:
        change = row.top1 - series.dense.top1 if series.dense else math.nan
        lines.append(
            [
                # The ratio of a network with a ratio for each layer is not round.
                percent(round(row.p_prune, 4) if row.scope.startswith("ratios ") else row.p_prune),
                f"{100 * row.achieved:.1f}%",
                accuracy(row),
                interval_text(row.top1_low, row.top1_high),
                *([f"{row.top1_std:.2f}"] if draws else []),
                "" if row is series.dense or math.isnan(change) else f"{change:+.1f}",
                f"{row.top5:.1f}",
                f"{row.loss:.3f}" if row.loss < 1000 else f"{row.loss:.2g}",
            ]
        )
    return TextTable([*heads, "top-5", "loss"], lines, series.model, names=0)


def _compared(model: str, group: Sequence[Series]) -> TextTable:
    """A row for each ratio, and a column for each series of a model."""
    found = [{row.p_prune: _with_half_width(row) for row in series.rows} for series in group]
    ratios = sorted({ratio for one in found for ratio in one})
    name = group[0].model
    title = model if name in model.split(", ") else f"{name}, {model}"
    heads = ["asked", *("\n".join(series.method.values()) or "top-1" for series in group)]
    lines = [[percent(ratio), *(one.get(ratio, "") for one in found)] for ratio in ratios]
    return TextTable(heads, lines, title, names=0)


def _with_half_width(row: Row) -> str:
    text = f"{accuracy(row)} ±{_half_width(row):.1f}"
    return f"{text} ({rounded_percent(row.achieved)})" if _other_share(row) else text


def _other_share(row: Row) -> bool:
    """Whether the ratio of pruned weights is not that of units which was asked for."""
    return abs(row.achieved - row.p_prune) > _AS_ASKED
