"""The table and the heat map of a sensitivity run: how much accuracy each layer costs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted
from secateurs.report.cells import NAME, draw_cell, label_cells, shade
from secateurs.report.figure import EDGE, add_axes, new_figure
from secateurs.report.labels import text_width
from secateurs.report.number_text import percent
from secateurs.report.text_table import TextTable
from secateurs.results import SensitivityRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEANING = "change of top-1 in points where this layer alone is pruned (images lost / won)"

_WIDTH, _HEIGHT = 46.0, 13.0  # of a cell, points
_UNDER, _NARROWEST = 30.0, 320.0
_DARK = (0.60, 0.11, 0.05)  # the colour of the greatest loss
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 6.5}


def layers_and_ratios(rows: Sequence[SensitivityRow]) -> tuple[list[str], list[float]]:
    """The layers of some rows in their order, and the ratios ascending."""
    return list(dict.fromkeys(row.layer for row in rows)), sorted({row.p_prune for row in rows})


def describe_sensitivity(rows: Sequence[SensitivityRow]) -> str:
    """The images, what counts as right, and the images of repairs or of scores, in one line."""
    row = rows[0]
    split = f" ({row.split})" if row.split else ""
    right = f"{row.dense_top1:.1f}% right" if row.labels == "data" else "no labels read"
    said = f"{counted(row.count, 'image')} of {row.data or 'the loader'}{split}, dense {right}"
    source = row.calibration or "the calibration"
    images = f"{counted(row.calibration_count, 'image')} of {source}"
    if row.repair:
        return f"{said}; the layer repaired by {row.repair.replace(';', ', ')} from {images}"
    return f"{said}; {row.score} scores from {images}" if row.calibration_count else said


def sensitivity_table(rows: Sequence[SensitivityRow]) -> tuple[TextTable, str]:
    """A row for each layer and a column for each ratio of a run; and what the cells mean."""
    layers, ratios = layers_and_ratios(rows)
    found = {(row.layer, row.p_prune): row for row in rows}
    sizes = {row.layer: f"{row.targets:,}" for row in rows}
    lines = [
        [layer, sizes[layer], *(_cell(found.get((layer, ratio))) for ratio in ratios)]
        for layer in layers
    ]
    table = TextTable(["layer", "weights", *map(percent, ratios)], lines, rows[0].model)
    return table, f"{_MEANING}; {describe_sensitivity(rows)}"


def _cell(row: SensitivityRow | None) -> str:
    return f"{row.change:+.1f} ({row.lost}/{row.won})" if row else ""


def sensitivity_figure(rows: Sequence[SensitivityRow], title: str | None) -> "Figure":
    """The change of top-1 for each layer and ratio of a run, as a heat map."""
    layers, ratios = layers_and_ratios(rows)
    left = max(text_width(layer, NAME) for layer in layers) + EDGE + 8
    across, down = _WIDTH * len(ratios), _HEIGHT * len(layers)
    width = max(left + across + EDGE, _NARROWEST)
    greatest = max(1.0, math.ceil(max(-row.change for row in rows)))
    said = f"Change of top-1 in points where one layer alone is pruned, darkest at -{greatest:g}"
    note = f"{said}; {describe_sensitivity(rows)}"
    figure = new_figure(width, down + _UNDER, title or rows[0].model, note)
    axes = add_axes(figure, left, _UNDER, across, down)
    for row in rows:
        _draw(axes, ratios.index(row.p_prune), layers.index(row.layer), row, greatest)
    label_cells(axes, [percent(ratio) for ratio in ratios], layers)
    axes.set_xlabel("Ratio of the layer's units that is pruned", fontsize=NAME, labelpad=3)
    return figure


def _draw(axes: "Axes", across: int, down: int, row: SensitivityRow, greatest: float) -> None:
    share = min(max(-row.change / greatest, 0.0), 1.0)
    draw_cell(axes, across, down, shade(_DARK, share))
    ink = "white" if share > 0.5 else "#222222"
    axes.text(across + 0.5, down + 0.5, f"{row.change:+.1f}", color=ink, **_MIDDLE)
