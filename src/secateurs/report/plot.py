"""The figure of a sweep: accuracy against pruning ratio."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import add_axes, draw_line, new_figure, style_axes, write_figure
from secateurs.report.labels import LABEL, LINE, Label, text_width, write_labels
from secateurs.report.series import Series, describe, split_series
from secateurs.report.style import LineStyle, line_styles
from secateurs.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In points (1/72 inch): the size of the axes, and the margins around them.
_WIDTH, _HEIGHT = 310.0, 205.0
_LEFT, _BOTTOM = 42.0, 38.0
_TICKS: dict[str, Any] = {"nbins": 10, "steps": [1, 2, 5, 10]}
Axis = Literal["achieved", "p_prune"]
AXES: dict[str, str] = {
    "achieved": "Weights pruned (%)",
    "p_prune": "Pruning ratio asked for (% of units)",
}


def plot_sweep(
    rows: Sequence[Row],
    path_stem: str | os.PathLike[str],
    *,
    title: str | None = None,
    x: Axis = "achieved",
) -> list[Path]:
    """Draw top-1 accuracy against the ratio of pruned weights, as PNG and as SVG.

    One line for each combination of model, granularity, scope and anything else that differs among
    the rows, labelled at its end; the 95% interval is shaded; the dense accuracy of each model is
    dashed. Text in the SVG stays text, and the same rows give the same files.

    Args:
        rows: The rows, of one or of several models, in any order.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; the model's name by default where there is one model.
        x: The horizontal axis: "achieved", the ratio of weights (elements) that were pruned, so
            that granularities can be compared, or "p_prune", the ratio of units asked for.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows, or `x` is something else.
        FailureError: The files cannot be written.
    """
    return write_figure(lambda: sweep_figure(rows, title, x), path_stem)


def sweep_figure(rows: Sequence[Row], title: str | None, x: Axis) -> "Figure":
    """The figure that `plot_sweep` writes."""
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
