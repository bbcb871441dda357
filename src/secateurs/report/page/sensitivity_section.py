"""The part of a page that shows what each layer costs: a heat map, and a table."""

from collections.abc import Sequence

from secateurs._io.text import counted
from secateurs.report.number_text import percent
from secateurs.report.page.figures import heatmap, names_axis, plotly_figure
from secateurs.report.page.page_parts import Chart, Section, Table, cell
from secateurs.report.sensitivity_report import describe_sensitivity, layers_and_ratios
from secateurs.results import SensitivityRow

_HOVER = (
    "%{y}<br>%{x} pruned alone: <b>%{z:+.2f}</b> points of top-1<br>%{customdata}<extra></extra>"
)


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
    layers, ratios = layers_and_ratios(rows)
    found = {(row.layer, row.p_prune): row for row in rows}
    cells = [[found.get((layer, ratio)) for ratio in ratios] for layer in layers]
    most = max(1.0, *(abs(row.change) for row in rows))
    trace = heatmap(
        [percent(ratio) for ratio in ratios],
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
