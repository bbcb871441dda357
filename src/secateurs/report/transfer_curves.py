"""Curves of success against the steps of an attack, for each target and over the hold-outs."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.report.figure import (
    EDGE,
    SMALL,
    add_axes,
    draw_line,
    new_figure,
    style_axes,
    wrap,
    write_figure,
)
from secateurs.report.grouping import describe_benchmark, shown_benchmarks
from secateurs.report.labels import LABEL, LINE, Label, text_width, write_labels
from secateurs.report.transfer_groups import BenchmarkRows, Goal
from secateurs.report.transfer_panels import CurvePanel, curve_panels
from secateurs.results import TransferRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In points: the panel of the mean, the small panels, and the margins around them.
_WIDTH, _HEIGHT = 330.0, 205.0
_PANEL_WIDTH, _PANEL_HEIGHT = 105.0, 92.0  # the least width
_LEFT, _BOTTOM, _GAP = 42.0, 34.0, 30.0
_TITLE = 9.5  # height of a line of a panel's title
_TICKS: dict[str, Any] = {"steps": [1, 2, 5, 10], "integer": True}


def plot_transfer_curves(
    rows: Sequence[TransferRow],
    path_stem: str | os.PathLike[str],
    *,
    title: str | None = None,
    outcome: Goal | None = None,
) -> list[Path]:
    """Draw success against the steps of the attack, as PNG and as SVG.

    The large panel shows the mean over all hold-outs, with a line for each variant, labelled at its
    end. Below it is a small panel for each pair of surrogates and hold-out (for each hold-out, if
    there are more than 12 pairs). The 95% interval over images is shaded.

    Arguments, paths and errors are those of `plot_transfer_heatmap`.
    """
    paths: list[Path] = []
    for stem, benchmark, chosen in shown_benchmarks(rows, path_stem, outcome):
        paths += write_figure(lambda b=benchmark, c=chosen: curves_figure(b, c, title), stem)
    return paths


def curves_figure(benchmark: BenchmarkRows, outcome: Goal, title: str | None) -> "Figure":
    """One of the figures that `plot_transfer_curves` writes."""
    return _figure(benchmark, curve_panels(benchmark, outcome), outcome, title)


def _figure(
    benchmark: BenchmarkRows, panels: Sequence[CurvePanel], outcome: Goal, title: str | None
) -> "Figure":
    main, small = panels[0], panels[1:]
    right, top = benchmark.steps[-1], _top(panels)
    height = max(_HEIGHT, 1.5 * LINE * len(main.curves))
    labels = _labels(main, right, top, height)
    margin = max(text_width(label.text, LABEL) for label in labels) + 26
    width = _LEFT + _WIDTH + margin
    room = width - _LEFT - 2 * EDGE + _GAP  # half of the last tick's label is outside
    across = min(len(small), int(room // (_PANEL_WIDTH + _GAP))) or 1
    wide = min(room / across, 1.5 * (_PANEL_WIDTH + _GAP)) - _GAP
    titles = [
        [line for part in panel.title for line in wrap(part, wide + EDGE, SMALL)] for panel in small
    ]
    deepest = max(map(len, titles), default=0) * _TITLE + 8
    down = math.ceil(len(small) / across)
    below = down * (_PANEL_HEIGHT + deepest + 20) + 6 if small else 0.0
    group = "" if len(benchmark.groups) != 1 else benchmark.surrogates_text(benchmark.groups[0])
    note = [f"surrogates {group}" if group else "", describe_benchmark(benchmark)]
    said = "; ".join(filter(None, [*note, "shaded: 95% interval"]))
    figure = new_figure(width, _BOTTOM + below + height + 16, title, said)
    axes = add_axes(figure, _LEFT, _BOTTOM + below, _WIDTH, height)
    _fill(axes, main, right, top, f"{outcome.capitalize()} success (%)")
    axes.set_xlabel("Steps of the attack", labelpad=4)
    heading = "\n".join(wrap(" ".join(main.title), _WIDTH + margin, 8.5))
    axes.set_title(heading, fontsize=8.5, loc="left", pad=6)
    write_labels(axes, labels, LINE, _WIDTH, height)
    for number, panel in enumerate(small):
        left = _LEFT + (number % across) * (wide + _GAP)
        up = below - (number // across + 1) * (_PANEL_HEIGHT + deepest + 20) + 14
        axes = add_axes(figure, left, up, wide, _PANEL_HEIGHT)
        _fill(axes, panel, right, top, None)
        axes.tick_params(labelsize=7)
        axes.set_title(
            "\n".join(titles[number]), fontsize=SMALL, loc="left", pad=4, linespacing=1.1
        )
    return figure


def _top(panels: Sequence[CurvePanel]) -> float:
    from matplotlib.ticker import MaxNLocator

    highest = max(
        point[2] for panel in panels for _, _, points in panel.curves for _, point in points
    )
    ticks = MaxNLocator(nbins=10, **_TICKS).tick_values(0, max(highest, 1.0))
    return min(100.0, float(ticks[-1]))


def _labels(panel: CurvePanel, right: float, top: float, height: float) -> list[Label]:
    return [
        Label(
            f"{name} ({points[-1][1][0]:.1f})",
            _WIDTH * points[-1][0] / right,
            height * points[-1][1][0] / top,
            style.text,
        )
        for name, style, points in panel.curves
    ]


def _fill(axes: "Axes", panel: CurvePanel, right: float, top: float, name: str | None) -> None:
    axes.set_xlim(0, right)
    axes.set_ylim(0, top)
    style_axes(axes)
    if name:
        axes.set_ylabel(name, labelpad=5)
    axes.locator_params(axis="x", nbins=10 if name else 4, **_TICKS)
    axes.locator_params(axis="y", nbins=10 if name else 5, **_TICKS)
    for _, style, points in panel.curves:
        along = [step for step, _ in points]
        values = [point for _, point in points]
        crowded = len(panel.curves) > 4
        draw_line(axes, along, values, style, crowded=crowded, markersize=4 if name else 2.5)
