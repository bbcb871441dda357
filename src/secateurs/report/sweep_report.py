"""The tables and the figure of a sweep: accuracy against pruning ratio."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import add_axes, draw_line, new_figure, style_axes
from secateurs.report.labels import LABEL, LINE, Label, text_width, write_labels
from secateurs.report.number_text import accuracy, interval_text, percent, rounded_percent
from secateurs.report.series import Series, describe, split_series
from secateurs.report.style import LineStyle, line_styles
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

_NEARLY_ALL = 0.9
_AS_ASKED = 0.01  # what rounding to whole units may change

# In points (1/72 inch): the size of the axes, and the margins around them.
_WIDTH, _HEIGHT = 310.0, 205.0
_LEFT, _BOTTOM = 42.0, 38.0
_TICKS: dict[str, Any] = {"nbins": 10, "steps": [1, 2, 5, 10]}
Axis = Literal["achieved", "p_prune"]
AXES: dict[str, str] = {
    "achieved": "Weights pruned (%)",
    "p_prune": "Pruning ratio asked for (% of units)",
}


def print_sweep(rows: Sequence[Row], console: "Console | None", note: str = "") -> None:
    """Print top-1 accuracy in percent.

    One series (one model, granularity, scope, ...) gives a table with a row for each ratio, and the
    interval, top-5 and the loss. Several series give a table for each model, with a row for each
    ratio and a column for each series.

    Args:
        rows: The rows, in any order.
        console: Where to print; a fresh rich console if None.
        note: A line to print below the table, in place of that on weights that do not compete.
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


def sweep_markdown(rows: Sequence[Row]) -> str:
    """A row for each series and a column for each ratio, and below it what the numbers are."""
    every = split_series(rows)
    ratios = sorted({row.p_prune for series in every for row in series.rows})
    extra = ["setting"] if any(_other_fields(series) for series in every) else []
    names = ["model", "granularity", "scope", *extra]
    lines: list[list[str]] = []
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
    table = TextTable([*names, *map(percent, ratios)], lines, names=len(names))
    widest = max(_half_width(row) for series in every for row in series.rows)
    said = "; ".join(filter(None, (describe(rows), _coverage(rows))))
    return table.markdown(f"Top-1 accuracy in percent, 95% interval at most ±{widest:.1f}; {said}")


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
    lines: list[dict[str, str]] = []
    for row in series.rows:
        change = row.top1 - series.dense.top1 if series.dense else None
        lines.append(
            {
                # The ratio of a network with a ratio for each layer is not round.
                "asked": percent(
                    round(row.p_prune, 4) if row.scope.startswith("ratios ") else row.p_prune
                ),
                "pruned": f"{100 * row.achieved:.1f}%",
                "top-1": accuracy(row),
                "95% interval": interval_text(row.top1_low, row.top1_high),
                **({"std": f"{row.top1_std:.2f}"} if draws else {}),
                "change": "" if change is None or row is series.dense else f"{change:+.1f}",
                "top-5": f"{row.top5:.1f}",
                "loss": f"{row.loss:.3f}" if row.loss < 1000 else f"{row.loss:.2g}",
            }
        )
    return TextTable.of(lines, series.model, names=0)


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


def sweep_figure(rows: Sequence[Row], title: str | None, x: Axis) -> "Figure":
    """Top-1 accuracy against the ratio of pruned weights.

    One line for each combination of model, granularity, scope and anything else that differs among
    the rows, labelled at its end; the 95% interval is shaded; the dense accuracy of each model is
    dashed.

    Raises:
        InvalidArgumentError: There is no such axis ``x``.
    """
    if x not in AXES:
        raise InvalidArgumentError(f'x is {x!r}; give "achieved" or "p_prune"')
    every, subtitle = split_series(rows), describe(rows)
    if title is None and len({series.model for series in every}) == 1:
        title = every[0].model
    drawn = list(zip(every, line_styles(every), strict=True))
    scale = _scale(every, x)
    labels = _labels(drawn, scale, x)
    margin = max(text_width(label.text, LABEL) for label in labels) + 26
    note = "; ".join(filter(None, [subtitle, "shaded: 95% interval"]))
    figure = new_figure(_LEFT + scale.width + margin, _BOTTOM + scale.height, title, note)
    axes = add_axes(figure, _LEFT, _BOTTOM, scale.width, scale.height)
    _frame(axes, scale, x)
    for series, style in drawn:
        _draw(axes, series, style, x, crowded=len(every) > 4)
    for dense, _, colour in _dense(drawn):
        axes.axhline(dense.top1, color=colour, linewidth=0.8, dashes=(5, 3), alpha=0.8, zorder=1.5)
    write_labels(axes, labels, LINE, scale.width, scale.height)
    return figure


@dataclass(frozen=True)
class _Scale:
    """From data to points, counted from the lower left corner of the axes."""

    width: float
    height: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return self.width * value / self.right

    def y(self, value: float) -> float:
        return self.height * (value - self.low) / (self.high - self.low)


def _scale(every: Sequence[Series], x: str) -> _Scale:
    from matplotlib.ticker import MaxNLocator

    rows = [row for series in every for row in series.rows]
    right = 100 * max(getattr(row, x) for row in rows) or 1.0
    # The next tick: an axis up to 89.998 would lack the label at 90.
    right = float(MaxNLocator(**_TICKS).tick_values(0, right)[-1])
    low = min(row.top1_low for row in rows)
    low = 0.0 if low < 25 else 5 * math.floor(low / 5)
    high = min(100.0, 5 * math.ceil(max(row.top1_high for row in rows) / 5))
    count = len(every) + len({series.dense_label for series in every})
    return _Scale(_WIDTH, max(_HEIGHT, 1.5 * LINE * count), right, low, high)


def _frame(axes: "Axes", scale: _Scale, x: str) -> None:
    axes.set_xlim(0, scale.right)
    axes.set_ylim(scale.low, scale.high)
    axes.set_xlabel(AXES[x], labelpad=5)
    axes.set_ylabel("Top-1 accuracy (%)", labelpad=5)
    style_axes(axes)
    axes.locator_params(axis="x", **_TICKS)
    axes.locator_params(axis="y", integer=True, **_TICKS)  # "99.5" does not fit into the margin


def _draw(axes: "Axes", series: Series, style: LineStyle, x: str, *, crowded: bool) -> None:
    rows = sorted(series.rows, key=lambda row: getattr(row, x))
    along = [100 * getattr(row, x) for row in rows]
    points = [(row.top1, row.top1_low, row.top1_high) for row in rows]
    draw_line(axes, along, points, style, crowded=crowded)


def _labels(drawn: Sequence[tuple[Series, LineStyle]], scale: _Scale, x: str) -> list[Label]:
    labels: list[Label] = []
    for series, style in drawn:
        end = max(series.rows, key=lambda row: getattr(row, x))
        across, up = scale.x(100 * getattr(end, x)), scale.y(end.top1)
        labels.append(Label(series.label, across, up, style.text))
    for row, text, colour in _dense(drawn):
        labels.append(Label(text, scale.width, scale.y(row.top1), colour))
    return labels


def _dense(drawn: Sequence[tuple[Series, LineStyle]]) -> list[tuple[Row, str, str]]:
    """The dense row, text and colour of each model that has one."""
    models = {series.dense_label: (series, style) for series, style in reversed(drawn)}
    found: list[tuple[Row, str, str]] = []
    for model, (series, style) in reversed(models.items()):
        if series.dense:
            name = f"{model}, dense" if len(models) > 1 else "dense"
            text = f"{name} ({series.dense.top1:.1f})"
            found.append((series.dense, text, style.text if len(models) > 1 else "#555555"))
    return found
