"""Curves of success against the steps of an attack, for each pair and over the hold-outs."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.errors import InvalidArgumentError
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
from secateurs.report.style import LineStyle, variant_styles
from secateurs.report.transfer_groups import NOISE, BenchmarkRows, Goal, Pair, VariantRows
from secateurs.results import TransferRow
from secateurs.results.compare import success_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In points: the panel of the mean, the small panels, and the margins around them.
_WIDTH, _HEIGHT = 330.0, 205.0
_PANEL_WIDTH, _PANEL_HEIGHT = 105.0, 92.0  # the least width
_LEFT, _BOTTOM, _GAP = 42.0, 34.0, 30.0
_TITLE = 9.5  # height of a line of a panel's title
_TICKS: dict[str, Any] = {"steps": [1, 2, 5, 10], "integer": True}
_MOST = 12  # pairs with a panel each; of more, each hold-out has one

Points = list[tuple[int, tuple[float, float, float]]]
"""Steps, each with a value and the low and the high end of its interval."""


@dataclass(frozen=True)
class CurvePanel:
    """The lines of a title, and the name, style and points of each curve."""

    title: list[str]
    curves: list[tuple[str, LineStyle, Points]]


def curve_panels(benchmark: BenchmarkRows, outcome: Goal) -> list[CurvePanel]:
    """The panel of the mean; after it the small ones, if the mean is over several pairs."""
    styles = variant_styles([line.label for line in benchmark.lines])
    order = {names: number for number, names in enumerate(benchmark.groups)}
    pairs = sorted(
        benchmark.holdouts,
        key=lambda pair: (benchmark.targets.index(pair[1]), order.get(pair[0], len(order))),
    )
    groups = len(benchmark.groups)
    main = [line for line in benchmark.lines if groups < 2 or not line.surrogates]
    if len(pairs) == 1:
        heading = _pair_title(benchmark, pairs[0])
    else:
        targets = len({target for _, target in pairs})
        over = (
            f"{targets} {benchmark.measured}" if benchmark.measured != "white-box" else "white-box"
        )
        heading = [f"Mean over {over}" + (f", {groups} groups of surrogates" * (groups > 1))]
    mean = [(line, benchmark.holdouts_of(line)) for line in main]
    panels = [CurvePanel(heading, _curves(benchmark, mean, outcome, styles))]
    if not panels[0].curves:
        raise InvalidArgumentError(
            "no variant is finished on all hold-outs, so there is no mean to draw; let the run"
            " finish first"
        )
    if len(pairs) > _MOST:
        for target in dict.fromkeys(target for _, target in pairs):
            over = [(line, _of_target(benchmark, line, target)) for line in main]
            curves = _curves(benchmark, over, outcome, styles)
            panels.append(CurvePanel([benchmark.short[target]], curves))
    elif len(pairs) > 1:
        for names, target in pairs:
            own = [line for line in benchmark.lines if line.surrogates in (names, "")]
            over = [(line, _of_target(benchmark, line, target)) for line in own]
            curves = _curves(benchmark, over, outcome, styles)
            panels.append(CurvePanel(_pair_title(benchmark, (names, target)), curves))
    return panels


def _of_target(benchmark: BenchmarkRows, line: VariantRows, target: str) -> set[Pair]:
    return {pair for pair in benchmark.holdouts_of(line) if pair[1] == target}


def _pair_title(benchmark: BenchmarkRows, pair: Pair) -> list[str]:
    name, by = benchmark.short[pair[1]], benchmark.surrogates_text(pair[0])
    if len(benchmark.groups) < 2 or not by:
        return [name]
    return [name, "from all others" if by == f"all but {name}" else f"from {by}"]


def _curves(
    benchmark: BenchmarkRows,
    lines: Sequence[tuple[VariantRows, set[Pair]]],
    outcome: Goal,
    styles: dict[str, LineStyle],
) -> list[tuple[str, LineStyle, Points]]:
    found: list[tuple[str, LineStyle, Points]] = []
    for line, pairs in lines:
        points: Points = []
        for step in benchmark.steps:
            hits = line.hits(outcome, pairs, step)
            if hits:
                one = success_interval(hits)
                points.append((step, (one.value, one.low, one.high)))
        if points:
            if line.variant == NOISE and len(points) == 1:
                # Noise has no steps: its success is the same at all of them.
                points = [(step, points[0][1]) for step in benchmark.steps]
            found.append((line.label, styles[line.label], points))
    return found


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
    panels = curve_panels(benchmark, outcome)
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
