"""The part of a page that shows a budget: the drop of each network tried, and the claim."""

from collections.abc import Sequence
from typing import Any

from secateurs._io.text import counted
from secateurs.report.budget_report import (
    chosen_row,
    describe_budget,
    headline_of,
    highest_shown,
    passes_over_images,
    points_text,
    undecided_row,
)
from secateurs.report.number_text import percent
from secateurs.report.page.colours import DENSE, FAINT, LINES
from secateurs.report.page.figures import axis, curve, plotly_figure
from secateurs.report.page.page_parts import Chart, Fact, Section, Table, Toggle, cell
from secateurs.results import BudgetRow

_HOVER = (
    "%{x:g}% pruned, %{customdata[0]}<br>drop <b>%{customdata[1]}</b> points, limit "
    "%{customdata[2]}<br>%{customdata[3]}<extra>%{fullData.name}</extra>"
)


def budget_section(rows: Sequence[BudgetRow]) -> Section:
    """The claim, the chart and the table of one run."""
    first = rows[0]
    looks = "One network was" if len(rows) == 1 else f"{len(rows)} networks were"
    repair = f", repaired by {first.repair.replace(';', ' and ')}" if first.repair else ""
    return Section(
        title=f"Budget of {first.model}: {points_text(first.max_drop)}{repair}",
        headline=headline_of(rows),
        notes=[
            f"{describe_budget(rows)}. {looks} tried on the same images, each at a seventh of the "
            f"allowed error, in {passes_over_images(rows):.1f} passes over them."
        ],
        facts=_facts(rows),
        charts=[_chart(rows)],
        tables=[_table(rows)],
    )


def _facts(rows: Sequence[BudgetRow]) -> list[Fact]:
    best, open_ = chosen_row(rows), undecided_row(rows)
    facts: list[Fact] = []
    if best:
        top1 = f"{best.dense_top1:.2f}% to {best.dense_top1 - best.drop:.2f}%"
        facts = [
            Fact(percent(best.p_prune), f"of the {best.granularity}s pruned"),
            Fact(f"{best.drop:.2f} points", f"drop of top-1, {top1}"),
            Fact(
                f"{best.drop_high:.2f} points",
                f"limit of the drop, with {100 * best.confidence:g}% confidence",
            ),
        ]
    if open_:
        said = f"images would show the same of {percent(open_.p_prune)}"
        facts.append(Fact(f"{open_.needed:,}", said))
    return facts


def _chart(rows: Sequence[BudgetRow]) -> Chart:
    rows = sorted(rows, key=lambda row: row.p_prune)
    first, top = rows[0], highest_shown(rows)
    ratios = [_percentage(row) for row in rows]
    toggles: list[Toggle] = []
    traces = [
        curve("", ratios, [min(row.drop, top) for row in rows], FAINT, hover="", mode="lines",
              hoverinfo="skip", line={"color": FAINT, "width": 1})
    ]  # fmt: skip
    for passed, colour, name in ((True, LINES[0], "passed"), (False, LINES[1], "failed")):
        own = [row for row in rows if row.passed == passed]
        if own:
            traces.append(_trace(own, colour, name, len(toggles), top))
            toggles.append(Toggle(name, colour))
    allowed = [first.max_drop] * 2
    said = f"allowed: {points_text(first.max_drop)}"
    traces.append(
        curve(said, [0.0, 100.0], allowed, DENSE, hover=said, dashed=True, mode="lines",
              meta={"toggle": len(toggles)})
    )  # fmt: skip
    toggles.append(Toggle(said, DENSE, dashed=True))
    above = " Triangles: above the axis." if any(row.drop > top for row in rows) else ""
    low = min(0.0, 1.2 * min(row.drop for row in rows)) - 0.04 * top
    return Chart(
        "Drop of top-1 of each network that was tried; bar: up to its limit at "
        f"{100 * first.confidence:g}% confidence; dashed: the drop that was allowed.{above}",
        f"Drop of top-1 of {counted(len(rows), 'network')} between {percent(first.p_prune)} and "
        f"{percent(rows[-1].p_prune)} pruned. The table has the numbers.",
        plotly_figure(
            traces,
            axis(
                f"Ratio that is pruned (% of {first.granularity}s)",
                range=[ratios[0] - 3, ratios[-1] + 3],
            ),
            axis("Drop of top-1 (points)", range=[low, 1.03 * top]),
        ),
        toggles,
        height=360,
    )


def _percentage(row: BudgetRow) -> float:
    return round(100 * row.p_prune, 6)


def _trace(
    rows: Sequence[BudgetRow], colour: str, name: str, toggle: int, top: float
) -> dict[str, Any]:
    shown = [row.drop <= top for row in rows]
    up = [max(r.drop_high - r.drop, 0.0) if s else 0.0 for r, s in zip(rows, shown, strict=True)]
    usual = "circle" if rows[0].passed else "x"
    trace = curve(
        name,
        [_percentage(row) for row in rows],
        [min(row.drop, top) for row in rows],
        colour,
        hover=_HOVER,
        hover_data=[
            [
                f"{counted(row.count, 'image')}",
                f"{row.drop:.2f}",
                f"{row.drop_high:.2f}",
                f"{row.lost} lost, {row.won} won",
            ]
            for row in rows
        ],
        meta={"toggle": toggle},
        mode="markers",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": [0.0] * len(rows),
            "color": colour,
            "thickness": 1.5,
            "width": 4,
        },
    )
    symbols = [usual if here else "triangle-up" for here in shown]
    return trace | {"marker": {"color": colour, "size": 9, "symbol": symbols}}


def _table(rows: Sequence[BudgetRow]) -> Table:
    cells = [
        {
            "asked %": cell(_percentage(row)),
            "images": cell(row.count, "{:,}"),
            "lost": cell(row.lost, "{:,}"),
            "won": cell(row.won, "{:,}"),
            "drop": cell(row.drop, "{:.2f}"),
            "limit": cell(row.drop_high, "{:.2f}"),
            "outcome": cell("passed" if row.passed else "failed"),
            "images needed": cell(row.needed, "{:,}"),
        }
        for row in rows
    ]
    return Table.of(
        "Each network that was tried",
        cells,
        "Drop and limit in points. A network with fewer images was given up: it could not pass any "
        "more. Images needed: about how many would show that the drop is allowed, if all flip as "
        "these did.",
    )
