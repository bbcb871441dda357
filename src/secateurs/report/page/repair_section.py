"""The part of a page that shows a repair: agreement and accuracy after each stage."""

from collections.abc import Sequence

from secateurs.report.page.colours import line_colour
from secateurs.report.page.figures import axis, names_axis, plain, plotly_figure
from secateurs.report.page.page_parts import Chart, Fact, Section, Table, TableCell, Toggle, cell
from secateurs.report.repair_stages import RepairStage, describe_repair, measures_of, stages_of
from secateurs.results import RepairRow

STAGE_HEADS = ["stage", "loss", "agreement %", "top-1 %", "seconds"]
_HOVER = "%{x}<br><b>%{y:.1f}%</b>, loss %{customdata}<extra>%{fullData.name}</extra>"


def repair_section(rows: Sequence[RepairRow]) -> Section:
    """The headline, the chart and the table of one run."""
    rows = sorted(rows, key=lambda row: row.stage)
    last, pruned = rows[-1], next((row for row in rows if row.stage == 1), rows[-1])
    stages = stages_of(rows)
    ends = (
        f"agreement with the dense network went from {pruned.agreement:.1f}% to "
        f"{last.agreement:.1f}%"
    )
    if pruned.top1 is not None and last.top1 is not None:
        ends = f"top-1 went from {pruned.top1:.1f}% to {last.top1:.1f}%, {ends}"
    return Section(
        title=f"Repair of {last.model}",
        headline=f"{100 * last.achieved:.4g}% of the weights are zero: {ends}.",
        notes=[describe_repair(last)],
        facts=[_fact(row) for row in (rows[0], pruned, last) if row.top1 is not None or row.stage],
        charts=[_chart(stages)],
        tables=[_table(stages)],
    )


def _fact(row: RepairRow) -> Fact:
    """Top-1 after a stage, or where nothing was scored the agreement with the dense network."""
    steps = row.steps.replace(";", ", ")
    if row.top1 is None:
        return Fact(f"{row.agreement:.1f}%", f"agreement, {steps}")
    return Fact(f"{row.top1:.1f}%", f"top-1, {steps}")


def _chart(stages: Sequence[RepairStage]) -> Chart:
    measures = measures_of(stages)
    names = [stage.name for stage in stages]
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": [plain(stage).replace(", ", ",<br>") for stage in names],
            "y": values,
            "customdata": [f"{stage.loss:.3g}" for stage in stages],
            "marker": {"color": line_colour(number)},
            "hovertemplate": _HOVER,
            "texttemplate": "%{y:.1f}",
            "textposition": "outside",
            "cliponaxis": False,
            "meta": {"toggle": number},
        }
        for number, (name, values) in enumerate(measures.items())
    ]
    return Chart(
        "After each stage: images with the dense network's class, and accuracy where labelled "
        "images were scored.",
        f"Bars for {', '.join(names)}; agreement from {stages[0].agreement:.1f}% to "
        f"{stages[-1].agreement:.1f}%.",
        plotly_figure(bars, names_axis(), axis("Images (%)", range=[0, 106]), bargap=0.35),
        [Toggle(name, line_colour(number)) for number, name in enumerate(measures)],
        height=320,
    )


def _table(stages: Sequence[RepairStage]) -> Table:
    return Table("Each stage", STAGE_HEADS, [stage_cells(stage) for stage in stages])


def stage_cells(stage: RepairStage) -> list[TableCell]:
    """The cells of a stage below `STAGE_HEADS`."""
    return [
        cell(stage.name),
        cell(stage.loss, "{:.3g}"),
        cell(stage.agreement, "{:.1f}"),
        cell(stage.top1, "{:.1f}"),
        cell(stage.seconds, "{:.1f}"),
    ]
