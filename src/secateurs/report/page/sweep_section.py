"""The part of a page that shows sweeps: accuracy against the ratio of pruned weights."""

from collections.abc import Sequence
from typing import Any

from secateurs.report.number_text import accuracy, interval_text, percent, rounded_percent
from secateurs.report.page.colours import DENSE, is_dashed, line_colour
from secateurs.report.page.figures import axis, band, curve, plotly_figure
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
from secateurs.report.series import Series, describe, split_series
from secateurs.report.sweep_report import AXES, Axis
from secateurs.results import Row

_POINT = 1.0
"""Loss of accuracy, in points, up to which the headline counts."""

_FACTS = 4

_HOVER = (
    "%{customdata[0]} pruned (asked %{customdata[1]})<br>"
    "top-1 <b>%{customdata[2]}%</b>, %{customdata[3]}<br>%{customdata[4]}"
    "<extra>%{fullData.name}</extra>"
)


def sweep_section(rows: Sequence[Row], x: Axis = "achieved") -> Section:
    """The headline, the curves and the table of sweeps; ``x`` is the horizontal axis."""
    every = split_series(rows)
    return Section(
        title="Accuracy after pruning",
        headline=_headline(every),
        notes=list(filter(None, [describe(rows)])),
        facts=_facts(every),
        charts=[_chart(every, x)],
        tables=[_table(every)],
    )


def _headline(every: Sequence[Series]) -> str:
    compared = [series for series in every if series.dense and len(series.rows) > 1]
    if not compared:
        rows = [row for series in every for row in series.rows]
        low, high = min(rows, key=_top1), max(rows, key=_top1)
        return f"Top-1 accuracy from {accuracy(low)}% to {accuracy(high)}%."
    best = max(compared, key=_kept_up_to)
    ratio = _kept_up_to(best)
    if not ratio:
        least = min(row.achieved for one in compared for row in one.rows if row.p_prune > 0)
        return (
            f"Already with {rounded_percent(least)} of the weights pruned, top-1 falls by a point "
            "or more."
        )
    several = f" ({best.label})" if len(every) > 1 else ""
    return (
        f"{rounded_percent(ratio)} of the weights of {best.model} pruned, and top-1 less than one "
        f"point below the dense network's{several}."
    )


def _top1(row: Row) -> float:
    return row.top1


def _kept_up_to(series: Series) -> float:
    """The ratio of weights up to which no measured top-1 is a point below the dense one."""
    reached = 0.0
    for row in series.rows:
        if series.dense is None or series.dense.top1 - row.top1 >= _POINT:
            break
        reached = row.achieved
    return reached


def _facts(every: Sequence[Series]) -> list[Fact]:
    """The dense accuracy and how far each series goes; of several models, the best series each."""
    scored = sorted((one for one in every if one.dense), key=_kept_up_to, reverse=True)
    best = {series.dense_label: series for series in reversed(scored)}
    denses = {one.dense_label: accuracy(one.dense) for one in scored if one.dense}
    if len(best) == 1:
        dense = scored[0].dense
        said = f"top-1 of {scored[0].model}, dense, {_interval(dense)}" if dense else ""
        within = [_within(one) for one in scored[: _FACTS - 1]]
        return [Fact(f"{denses[scored[0].dense_label]}%", said), *within]
    return [
        Fact(
            rounded_percent(_kept_up_to(series)),
            f"pruned within one point of {denses[model]}%: {series.label}",
        )
        for model, series in list(reversed(best.items()))[:_FACTS]
    ]


def _within(series: Series) -> Fact:
    ratio = _kept_up_to(series)
    if not ratio:
        return Fact("none", f"of the ratios stays within one point: {series.label}")
    return Fact(rounded_percent(ratio), f"pruned within one point: {series.label}")


def _interval(row: Row) -> str:
    return f"95% interval {interval_text(row.top1_low, row.top1_high)}"


def _chart(every: Sequence[Series], x: Axis) -> Chart:
    traces: list[dict[str, Any]] = []
    toggles: list[Toggle] = []
    right = 100 * max(getattr(row, x) for series in every for row in series.rows) or 1.0
    for number, series in enumerate(every):
        colour, dashed, meta = line_colour(number), is_dashed(number), {"toggle": number}
        toggles.append(Toggle(series.label, colour, dashed))
        rows = sorted(series.rows, key=lambda row: getattr(row, x))
        along = [100 * getattr(row, x) for row in rows]
        ends = [row.top1_low for row in rows], [row.top1_high for row in rows]
        traces.append(band(along, *ends, colour, meta=meta))
        traces.append(
            curve(
                series.label,
                along,
                [row.top1 for row in rows],
                colour,
                hover=_HOVER,
                hover_data=[_hover_data(row, series) for row in rows],
                meta=meta,
                dashed=dashed,
            )
        )
    denses = {series.dense_label: series.dense for series in every if series.dense}
    if denses:
        meta = {"toggle": len(toggles)}
        toggles.append(Toggle("dense", DENSE, dashed=True))
        for label, dense in denses.items():
            traces.append(
                curve(
                    f"{label}, dense",
                    [0, right],
                    [dense.top1] * 2,
                    DENSE,
                    hover=f"top-1 {accuracy(dense)}%<extra>%{{fullData.name}}</extra>",
                    meta=meta,
                    mode="lines",
                    line={"color": DENSE, "width": 1.2, "dash": "dash"},
                )
            )
    figure = plotly_figure(traces, axis(AXES[x], rangemode="tozero"), axis("Top-1 accuracy (%)"))
    said = "; ".join(
        f"{series.label}: top-1 from {accuracy(series.rows[0])}% to {accuracy(series.rows[-1])}%"
        for series in every
    )
    return Chart(
        "Top-1 accuracy against the ratio of weights that were pruned; shaded: 95% interval.",
        f"Curves of top-1 accuracy against the ratio of pruned weights. {said}.",
        figure,
        toggles,
    )


def _hover_data(row: Row, series: Series) -> list[str]:
    change = ""
    if series.dense and row is not series.dense:
        change = f"{row.top1 - series.dense.top1:+.1f} points to dense"
    return [
        rounded_percent(row.achieved),
        percent(row.p_prune),
        accuracy(row),
        _interval(row),
        change,
    ]


def _table(every: Sequence[Series]) -> Table:
    named = ("granularity", "scope", "score")
    rows: list[dict[str, TableCell]] = []
    for series in every:
        setting = [text for name, text in series.method.items() if name not in named]
        for row in series.rows:
            own = row.p_prune > 0
            change = row.top1 - series.dense.top1 if series.dense and own else None
            rows.append(
                {
                    "model": cell(series.dense_label),
                    **{name: cell(getattr(row, name) if own else "") for name in named},
                    "setting": cell(", ".join(setting) if own else ""),
                    "asked %": cell(round(100 * row.p_prune, 6)),
                    "pruned %": cell(100 * row.achieved, "{:.1f}"),
                    "top-1 %": TableCell(accuracy(row), row.top1),
                    "95% interval": interval_cell(row.top1_low, row.top1_high),
                    "std": cell(row.top1_std, "{:.2f}"),
                    "change": cell(change, "{:+.1f}"),
                    "top-5 %": cell(row.top5, "{:.1f}"),
                    "loss": cell(row.loss, "{:.3f}" if row.loss < 1000 else "{:.2g}"),
                    "images/s": cell(row.infer_samples_per_sec, "{:,.0f}"),
                }
            )
    table = Table.of(
        "Every measured setting",
        # each once: the dense network starts every series, but is one result
        list({tuple(row.values()): row for row in rows}.values()),
        "Change: points of top-1 to the dense network. Images a second while it was measured.",
    )
    varying = {name for series in every for name in series.method}
    used = {
        "model": any(series.dense_names for series in every),
        **{name: name in varying for name in named},
        "setting": any(row["setting"].text for row in rows),
        "std": any(row.draws > 1 for series in every for row in series.rows),
    }
    return table.without([head for head, is_used in used.items() if not is_used])
