"""What the curves of a transfer benchmark show: a mean over the hold-outs, and each pair."""

from collections.abc import Sequence
from dataclasses import dataclass

from secateurs.errors import InvalidArgumentError
from secateurs.report.style import LineStyle, variant_styles
from secateurs.report.transfer_groups import NOISE, BenchmarkRows, Goal, Pair, VariantRows
from secateurs.results.compare import success_interval

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
