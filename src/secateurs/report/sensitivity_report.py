"""A sensitivity run in a table, a heat map and on a page: what each layer costs in accuracy."""

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted
from secateurs.report.cells import NAME, draw_cell, label_cells, shade
from secateurs.report.figure import EDGE, add_axes, new_figure
from secateurs.report.labels import text_width
from secateurs.report.number_text import percent
from secateurs.report.page.figures import heatmap, names_axis, plotly_figure
from secateurs.report.page.page_parts import Chart, Section, Table, cell
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

_HOVER = (
    "%{y}<br>%{x} pruned alone: <b>%{z:+.2f}</b> points of top-1<br>%{customdata}<extra></extra>"
)


def _grid(
    rows: Sequence[SensitivityRow],
) -> tuple[list[str], list[str], list[list[SensitivityRow | None]]]:
    """The layers in their order, the ratios ascending, and for each layer the row of each ratio."""
    layers, ratios = dict.fromkeys(row.layer for row in rows), sorted({r.p_prune for r in rows})
    found = {(row.layer, row.p_prune): row for row in rows}
    cells = [[found.get((layer, ratio)) for ratio in ratios] for layer in layers]
    return list(layers), list(map(percent, ratios)), cells


def describe_sensitivity(rows: Sequence[SensitivityRow]) -> str:
    """The images, what counts as right, and the images of repairs or of scores, in one line."""
    row = rows[0]
    split = f" ({row.split})" if row.split else ""
    right = f"dense {row.dense_top1:.1f}% right" if row.labels == "data" else "no label read"
    data = PurePath(row.data).name or "the loader"
    said = f"{counted(row.count, 'image')} of {data}{split}, {right}"
    source = PurePath(row.calibration).name or "the calibration"
    images = f"{counted(row.calibration_count, 'image')} of {source}"
    if row.repair:
        return f"{said}; the layer repaired by {row.repair.replace(';', ', ')} from {images}"
    return f"{said}; {row.score} scores from {images}" if row.calibration_count else said


def sensitivity_table(rows: Sequence[SensitivityRow]) -> tuple[TextTable, str]:
    """A row for each layer and a column for each ratio of a run; and what the cells mean."""
    layers, ratios, cells = _grid(rows)
    sizes = {row.layer: f"{row.targets:,}" for row in rows}
    lines = [
        [layer, sizes[layer], *map(_cell, own)] for layer, own in zip(layers, cells, strict=True)
    ]
    table = TextTable(["layer", "weights", *ratios], lines, rows[0].model)
    return table, f"{_MEANING}; {describe_sensitivity(rows)}"


def _cell(row: SensitivityRow | None) -> str:
    return f"{row.change:+.1f} ({row.lost}/{row.won})" if row else ""


def sensitivity_figure(rows: Sequence[SensitivityRow], title: str | None) -> "Figure":
    """The change of top-1 for each layer and ratio of a run, as a heat map."""
    layers, ratios, cells = _grid(rows)
    left = max(text_width(layer, NAME) for layer in layers) + EDGE + 8
    across, down = _WIDTH * len(ratios), _HEIGHT * len(layers)
    width = max(left + across + EDGE, _NARROWEST)
    greatest = max(1.0, math.ceil(max(-row.change for row in rows)))
    said = f"Change of top-1 in points where one layer alone is pruned, darkest at -{greatest:g}"
    note = f"{said}; {describe_sensitivity(rows)}"
    figure = new_figure(width, down + _UNDER, title or rows[0].model, note)
    axes = add_axes(figure, left, _UNDER, across, down)
    for down, own in enumerate(cells):
        for across, row in enumerate(own):
            if row is not None:
                _draw(axes, across, down, row, greatest)
    label_cells(axes, ratios, layers)
    axes.set_xlabel("Ratio of the layer's units that is pruned", fontsize=NAME, labelpad=3)
    return figure


def _draw(axes: "Axes", across: int, down: int, row: SensitivityRow, greatest: float) -> None:
    share = min(max(-row.change / greatest, 0.0), 1.0)
    draw_cell(axes, across, down, shade(_DARK, share))
    ink = "white" if share > 0.5 else "#222222"
    axes.text(across + 0.5, down + 0.5, f"{row.change:+.1f}", color=ink, **_MIDDLE)


def sensitivity_section(rows: Sequence[SensitivityRow]) -> Section:
    """The headline, the heat map and the table of one run."""
    worst = min(rows, key=lambda row: row.change)
    return Section(
        title=f"Sensitivity of {worst.model}",
        headline=f"Pruning one layer alone costs most in {worst.layer}: {worst.change:+.1f} points "
        f"of top-1 at {percent(worst.p_prune)}.",
        notes=[describe_sensitivity(rows)],
        charts=[_chart(rows)],
        tables=[_table(rows)],
    )


def _chart(rows: Sequence[SensitivityRow]) -> Chart:
    layers, ratios, cells = _grid(rows)
    most = max(1.0, *(abs(row.change) for row in rows))
    trace = heatmap(
        ratios,
        layers,
        [[row.change if row else None for row in line] for line in cells],
        shown="{:+.1f}",
        hover=_HOVER,
        hover_data=[[f"{c.lost} lost, {c.won} won" if c else "" for c in line] for line in cells],
        least=-most,
        most=most,
        scale="difference",
    )
    return Chart(
        "Change of top-1 in points where one layer alone is pruned.",
        f"Heat map of the change of top-1 for {counted(len(layers), 'layer')} at "
        f"{counted(len(ratios), 'ratio')}. The table has the numbers.",
        plotly_figure([trace], names_axis("Ratio pruned"), names_axis(autorange="reversed")),
        height=max(220, 110 + 26 * len(layers)),
    )


def _table(rows: Sequence[SensitivityRow]) -> Table:
    cells = [
        {
            "layer": cell(row.layer),
            "weights": cell(row.targets, "{:,}"),
            "pruned %": cell(round(100 * row.p_prune, 6)),
            "top-1 %": cell(row.top1, "{:.2f}"),
            "change": cell(row.change, "{:+.2f}"),
            "lost": cell(row.lost),
            "won": cell(row.won),
            "divergence": cell(row.divergence, "{:.2g}"),
        }
        for row in rows
    ]
    return Table.of("Each layer, pruned alone", cells, "Lost, won: images that flipped.")
