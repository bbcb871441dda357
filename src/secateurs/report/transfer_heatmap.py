"""The heat map of success: from each group of surrogates on each target."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.report.cells import NAME, draw_cell, label_cells, shade
from secateurs.report.figure import EDGE, add_axes, new_figure, wrap, write_figure
from secateurs.report.grouping import describe_benchmark, shown_benchmarks
from secateurs.report.labels import text_width
from secateurs.report.names import break_name
from secateurs.report.transfer_groups import NOISE, PLAIN, WHITE, BenchmarkRows, Goal, VariantRows
from secateurs.results import TransferRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 9.0  # height of a line of the name
_CELL_WIDTH, _CELL_HEIGHT = 46.0, 30.0
_GAP = 22.0  # between panels
_WIDEST = 800.0  # points; a single panel may be wider
_ACROSS, _DOWN = 14, 26  # letters in a line of a target's and of the surrogates' names
_DARK = (0.03, 0.27, 0.51)  # the colour of the highest success on a hold-out
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
_WHITE_BOX, _ABSENT = "#e9e9e9", "#ffffff"


@dataclass(frozen=True)
class _Layout:
    """Sizes in points that all panels share."""

    groups: list[str]
    names: list[list[str]]
    heads: list[list[str]]
    cell: tuple[float, float]
    left: float

    @property
    def width(self) -> float:
        return self.cell[0] * len(self.heads)

    @property
    def height(self) -> float:
        return self.cell[1] * len(self.names)


def plot_transfer_heatmap(
    rows: Sequence[TransferRow],
    path_stem: str | os.PathLike[str],
    *,
    title: str | None = None,
    outcome: Goal | None = None,
) -> list[Path]:
    """Draw the success from each group of surrogates on each target, as PNG and as SVG.

    A panel for each variant except noise. Each cell shows success at the last step, mean over the
    seeds, and below it the difference to "plain" in points. Cells of hold-outs are coloured, on one
    scale for all panels; white-box cells are grey, with their numbers in parentheses.

    Args:
        rows: The rows, in any order. Those of a search are left out if there are others. Each
            protocol and each set of images gets a figure; "-2" and so on is added to the path.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure.
        outcome: "targeted" or "untargeted"; what the attack aimed at by default.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows, or none with that outcome.
        FailureError: The files cannot be written.
    """
    paths: list[Path] = []
    for stem, benchmark, chosen in shown_benchmarks(rows, path_stem, outcome):
        paths += write_figure(lambda b=benchmark, c=chosen: heatmap_figure(b, c, title), stem)
    return paths


def heatmap_figure(benchmark: BenchmarkRows, outcome: Goal, title: str | None) -> "Figure":
    """One of the figures that `plot_transfer_heatmap` writes."""
    lines = [line for line in benchmark.lines if line.variant != NOISE] or list(benchmark.lines)
    panels = list(dict.fromkeys(line.label for line in lines))
    layout = _layout(benchmark)
    room = max(layout.width + _GAP, _WIDEST - layout.left)
    across = min(len(panels), int(room // (layout.width + _GAP)))
    down = math.ceil(len(panels) / across)
    titles = [wrap(label, layout.width + _GAP - 6, 8.5) for label in panels]
    above = 11.0 * max(map(len, titles)) + 6
    under = _ROW * max(map(len, layout.heads)) + 14
    width = max(layout.left + across * (layout.width + _GAP), 300.0)
    highest = benchmark.highest(lines, outcome)
    height = down * (layout.height + above + under)
    figure = new_figure(width, height, title, "; ".join(_notes(benchmark, outcome, highest)))
    heads, names = (["\n".join(lines) for lines in part] for part in (layout.heads, layout.names))
    for number, label in enumerate(panels):
        left = layout.left + (number % across) * (layout.width + _GAP)
        up = (down - 1 - number // across) * (layout.height + above + under) + under
        axes = add_axes(figure, left, up, layout.width, layout.height)
        own = {line.surrogates: line for line in lines if line.label == label}
        _fill(axes, benchmark, [own.get(group) for group in layout.groups], outcome, highest)
        label_cells(axes, heads, names, named=number % across == 0)
        axes.set_title("\n".join(titles[number]), fontsize=8.5, loc="left", pad=5)
    return figure


def _notes(benchmark: BenchmarkRows, outcome: Goal, highest: float) -> list[str]:
    notes = [f"{outcome.capitalize()} success in percent, colours from 0 to {highest:g}"]
    if any(line.variant not in (PLAIN, NOISE) for line in benchmark.lines):
        notes.append("below it: points more than plain")
    if any(row.role == WHITE for row in benchmark.rows):
        notes.append("grey, in parentheses: white-box, the dense surrogate itself")
    return [*notes, describe_benchmark(benchmark)]


def _layout(benchmark: BenchmarkRows) -> _Layout:
    groups = benchmark.groups or [""]
    names = [
        break_name(benchmark.surrogates_text(group) or "no surrogate", _DOWN) for group in groups
    ]
    heads = [break_name(benchmark.short[target], _ACROSS) for target in benchmark.targets]
    widest = max(text_width(line, NAME) for lines in heads for line in lines)
    left = max(text_width(line, NAME) for lines in names for line in lines) + EDGE + 8
    height = max(_CELL_HEIGHT, _ROW * max(map(len, names)) + 6)
    return _Layout(groups, names, heads, (max(_CELL_WIDTH, widest + 6), height), left)


def _fill(
    axes: "Axes",
    benchmark: BenchmarkRows,
    lines: Sequence[VariantRows | None],
    outcome: Goal,
    highest: float,
) -> None:
    for down, line in enumerate(lines):
        for across, target in enumerate(benchmark.targets):
            cell = benchmark.cell(line, target, outcome)
            if cell is None:
                draw_cell(axes, across, down, _ABSENT)
                continue
            value, white = cell[0].value, cell[1] == WHITE
            share = min(value / highest, 1.0)
            draw_cell(axes, across, down, _WHITE_BOX if white else shade(_DARK, share))
            ink = "white" if share > 0.6 and not white else "#222222"
            text = f"({value:.1f})" if white else f"{value:.1f}"
            more = benchmark.more_than_plain(line, target, outcome)
            up = 0.5 if more is None else 0.38
            axes.text(across + 0.5, down + up, text, color=ink, fontsize=8, **_MIDDLE)
            if more is not None:
                axes.text(
                    across + 0.5, down + 0.72, f"{more:+.1f}", color=ink, fontsize=6.5, **_MIDDLE
                )
