"""The part of a page that shows a transfer benchmark: success on networks not attacked with."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from secateurs.errors import InvalidArgumentError
from secateurs.report.grouping import describe_benchmark, part_title, split_benchmarks
from secateurs.report.number_text import interval_text, p_text
from secateurs.report.page.figures import axis, band, curve, heatmap, names_axis, plotly_figure
from secateurs.report.page.page_parts import (
    Chart,
    Fact,
    Section,
    Table,
    TableCell,
    Toggle,
    cell,
    interval_cell,
)
from secateurs.report.transfer_curves import curve_panels
from secateurs.report.transfer_groups import NOISE, PLAIN, WHITE, BenchmarkRows, Goal
from secateurs.results import TransferRow
from secateurs.results.compare import Comparison, Estimate

_CURVE_HOVER = (
    "step %{x}<br>success <b>%{y:.1f}%</b>, 95% interval %{customdata[0]}"
    "<extra>%{fullData.name}</extra>"
)
_CELL_HOVER = "on %{x}<br>from %{y}<br><b>%{z:.1f}%</b>, %{customdata}<extra></extra>"
_MORE_HOVER = "on %{x}<br>from %{y}<br><b>%{z:+.1f}</b> points to plain<extra></extra>"


def transfer_sections(rows: Sequence[TransferRow]) -> list[Section]:
    """A section for each protocol and each set of images; those that chose settings come last."""
    every = split_benchmarks(rows)
    searches = [one for one in every if one.rows[0].search_part == "search"]
    return [_section(one) for one in (*(one for one in every if one not in searches), *searches)]


def _section(benchmark: BenchmarkRows) -> Section:
    part, first = part_title(benchmark), benchmark.rows[0]
    data = PurePath(first.data).name
    charts = [
        chart(benchmark, outcome) for outcome in benchmark.outcomes for chart in (_heatmap, _curves)
    ]
    headline, facts = _findings(benchmark)
    return Section(
        title=f"Adversarial transfer on {data}, {first.method}" + f" ({part})" * bool(part),
        headline=headline,
        notes=[describe_benchmark(benchmark)],
        facts=facts,
        charts=[chart for chart in charts if chart],
        tables=[_table(benchmark, outcome) for outcome in benchmark.outcomes],
    )


def _findings(benchmark: BenchmarkRows) -> tuple[str, list[Fact]]:
    """What the benchmark says of its first outcome: the best variant, and what plain gives."""
    outcome = benchmark.outcomes[0]
    compared = benchmark.comparisons(outcome)
    over_all = [line for line in benchmark.lines if line.surrogates is None]
    shown = over_all or [line for line in benchmark.lines if line.variant != NOISE]
    means = [(line, benchmark.mean(line, outcome)) for line in shown]
    found = [(line, mean) for line, mean in means if mean]
    pruned = [pair for pair in found if pair[0].variant != PLAIN]
    if not found:
        return "No variant is finished on all hold-outs yet.", []
    line, best = max(pruned or found, key=lambda pair: pair[1].value)
    name = f"{line.label} ({benchmark.surrogates_text(line.surrogates)})"
    facts = [Fact(f"{best.value:.1f}%", f"{outcome} success of {name}")]
    plain = benchmark.baseline(line)
    dense = benchmark.mean(plain, outcome) if plain else None
    if dense:
        facts.append(Fact(f"{dense.value:.1f}%", f"{outcome} success of plain surrogates"))
    versus = compared.get(benchmark.lines.index(line))
    fools = f"{line.label} fools the {benchmark.measured} in {best.value:.1f}% of the images"
    if versus is None:
        return f"{fools}.", facts
    (one, p) = versus
    interval = interval_text(one.low, one.high, "{:+.1f}")
    facts.append(Fact(f"{one.difference:+.1f}", f"points, 95% interval {interval}, p {p_text(p)}"))
    word = "more" if one.difference >= 0 else "less"
    sure = "" if p < 0.05 else ", which may be chance"
    than = f"{abs(one.difference):.1f} points {word} than plain surrogates{sure}"
    if than.startswith("0.0"):
        than = "as often as plain surrogates"
    return f"{fools}, {than}.", facts


def _interval(one: Estimate) -> str:
    return f"95% interval {interval_text(one.low, one.high)}"


def _heatmap(benchmark: BenchmarkRows, outcome: Goal) -> Chart:
    lines = [line for line in benchmark.lines if line.variant != NOISE] or list(benchmark.lines)
    labels = list(dict.fromkeys(line.label for line in lines))
    groups: list[str | None] = [*benchmark.groups] or [""]
    targets = [benchmark.short[target] for target in benchmark.targets]
    names = [benchmark.surrogates_text(group) or "no surrogate" for group in groups]
    top = benchmark.highest(lines, outcome)
    traces: list[dict[str, Any]] = []
    views: list[str] = []
    for label in labels:
        own = {line.surrogates: line for line in lines if line.label == label}
        cells = [
            [benchmark.cell(own.get(group), target, outcome) for target in benchmark.targets]
            for group in groups
        ]
        meta = {"view": len(views)}
        views.append(label)
        for white in (False, True):
            z = [[c[0].value if c and (c[1] == WHITE) == white else None for c in r] for r in cells]
            said = [
                [_interval(c[0]) + " (white-box)" * white if c else "" for c in r] for r in cells
            ]
            if any(value is not None for row in z for value in row):
                traces.append(
                    heatmap(
                        targets, names, z, shown="({:.1f})" if white else "{:.1f}",
                        hover=_CELL_HOVER, hover_data=said, least=0, most=top, meta=meta,
                        scale="absent" if white else "share",
                    )
                )  # fmt: skip
        more = [
            [benchmark.more_than_plain(own.get(g), t, outcome) for t in benchmark.targets]
            for g in groups
        ]
        found = [abs(value) for row in more for value in row if value is not None]
        if found:
            most = max(10.0, *found)
            traces.append(
                heatmap(
                    targets, names, more, shown="{:+.1f}", hover=_MORE_HOVER, least=-most,
                    most=most, scale="difference", meta={"view": len(views)},
                )
            )  # fmt: skip
            views.append(f"{label}: points more than plain")
    figure = plotly_figure(
        traces,
        names_axis(side="top"),
        names_axis(autorange="reversed"),
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
    )
    white = any(row.role == WHITE for row in benchmark.rows)
    note = " Grey, in parentheses: white-box, the dense surrogate itself." if white else ""
    return Chart(
        f"{outcome.capitalize()} success in percent, from the surrogates on the left on the "
        f"networks above; colours from 0 to {top:g}.{note}",
        f"Heat map of {outcome} success: {len(names)} groups of surrogates by {len(targets)} "
        f"networks, for {len(labels)} variants. The table below has the numbers.",
        figure,
        views=views,
        view_label="Variant",
        height=max(150, 90 + 44 * len(names)),
    )


def _curves(benchmark: BenchmarkRows, outcome: Goal) -> Chart | None:
    try:
        panels = curve_panels(benchmark, outcome)
    except InvalidArgumentError:  # no variant is finished on all hold-outs
        return None
    if len(benchmark.steps) < 2:
        return None
    labels = list(dict.fromkeys(name for panel in panels for name, _, _ in panel.curves))
    styles = {name: style for panel in panels for name, style, _ in panel.curves}
    toggles = [
        Toggle(label, styles[label].colour.lower(), styles[label].dash != "-") for label in labels
    ]
    traces: list[dict[str, Any]] = []
    for number, panel in enumerate(panels):
        for name, style, points in panel.curves:
            steps = [float(step) for step, _ in points]
            values, low, high = zip(*(ends for _, ends in points), strict=True)
            meta = {"view": number, "toggle": labels.index(name)}
            said = [[interval_text(a, b)] for a, b in zip(low, high, strict=True)]
            colour = style.colour.lower()
            traces.append(band(steps, low, high, colour, meta=meta))
            traces.append(
                curve(
                    name, steps, values, colour, hover=_CURVE_HOVER, hover_data=said, meta=meta,
                    dashed=style.dash != "-",
                )
            )  # fmt: skip
    return Chart(
        f"{outcome.capitalize()} success against the steps of the attack; shaded: 95% interval "
        "over images.",
        f"Curves of {outcome} success against steps for {', '.join(labels)}.",
        plotly_figure(
            traces,
            # no ticks between steps
            axis("Step of the attack", rangemode="tozero", nticks=min(benchmark.steps[-1], 10)),
            axis(f"{outcome.capitalize()} success (%)", rangemode="tozero"),
        ),
        toggles,
        views=[" ".join(panel.title) for panel in panels],
        view_label="Networks",
    )


def _table(benchmark: BenchmarkRows, outcome: Goal) -> Table:
    compared = benchmark.comparisons(outcome)
    targets = [benchmark.short[target] for target in benchmark.targets]
    heads = ["surrogates", "variant", benchmark.measured, "95% interval"]
    heads += ["vs plain", "95% interval of it", "p"] * bool(compared) + targets
    rows: list[list[TableCell]] = []
    for number, line in enumerate(benchmark.lines):
        mean = benchmark.mean(line, outcome)
        names = benchmark.surrogates_text(line.surrogates) or "no surrogate"
        cells = [cell(names), cell(line.label), *_estimate(mean)]
        if compared:
            cells += _versus(compared.get(number))
        for target in benchmark.targets:
            found = benchmark.cell(line, target, outcome)
            shown = "({:.1f})" if found and found[1] == WHITE else "{:.1f}"
            cells.append(cell(found[0].value if found else None, shown))
        rows.append(cells)
    note = "95% intervals over images, seeds averaged in an image."
    if compared:
        note += " p: exact sign-flip test over images, corrected (Holm)."
    return Table(f"{outcome.capitalize()} success in percent", heads, rows, note)


def _estimate(one: Estimate | None) -> list[TableCell]:
    if one is None:
        return [cell("")] * 2
    return [cell(one.value, "{:.1f}"), interval_cell(one.low, one.high)]


def _versus(found: tuple[Comparison, float] | None) -> list[TableCell]:
    if found is None:
        return [cell("")] * 3
    one, p = found
    return [
        cell(one.difference, "{:+.1f}"),
        interval_cell(one.low, one.high, "{:+.1f}"),
        TableCell(p_text(p), p),
    ]
