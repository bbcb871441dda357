"""The heat map of a sensitivity run: how much accuracy each layer costs at each ratio."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.report.cells import NAME, draw_cell, label_cells, shade
from secateurs.report.figure import EDGE, add_axes, new_figure, write_figure
from secateurs.report.labels import text_width
from secateurs.report.number_text import percent
from secateurs.report.sensitivity_table import describe_sensitivity, layers_and_ratios
from secateurs.results import SensitivityRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 46.0, 13.0  # of a cell, points
_UNDER, _NARROWEST = 30.0, 320.0
_DARK = (0.60, 0.11, 0.05)  # the colour of the greatest loss
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 6.5}


def plot_sensitivity(
    rows: Sequence[SensitivityRow],
    path_stem: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> list[Path]:
    """Draw the change of top-1 for each layer and ratio, as PNG and as SVG.

    Args:
        rows: The rows of one run.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; default the name of the network.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows.
        FailureError: The files cannot be written.
    """
    return write_figure(lambda: sensitivity_figure(rows, title), path_stem)


def sensitivity_figure(rows: Sequence[SensitivityRow], title: str | None) -> "Figure":
    """The figure of `plot_sensitivity`."""
    rows = [row.printable() for row in rows]
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
