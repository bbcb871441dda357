"""The network after each stage of a repair: loss, agreement with the dense network, accuracy."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from secateurs._io.text import counted, printable
from secateurs.report.figure import add_axes, new_figure, style_axes, wrap
from secateurs.report.names import ranking
from secateurs.report.number_text import percent
from secateurs.report.page.colours import line_colour
from secateurs.report.page.figures import axis, names_axis, plain, plotly_figure
from secateurs.report.page.page_parts import Chart, Fact, Section, Table, TableCell, Toggle, cell
from secateurs.report.text_table import TextTable
from secateurs.results import RepairRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00")
# In points (1/72 inch): the room of a stage, and that around the axes.
_STAGE, _HEIGHT = 92.0, 150.0
_LEFT, _BOTTOM, _RIGHT, _LEGEND = 46.0, 46.0, 16.0, 20.0

STAGE_HEADS = ["stage", "loss", "agreement %", "top-1 %", "seconds"]
_HOVER = "%{x}<br><b>%{y:.1f}%</b>, loss %{customdata}<extra>%{fullData.name}</extra>"


class RepairStage(NamedTuple):
    """How good a network is after a stage of a repair, or before any.

    Attributes:
        name: What was done.
        loss: Divergence from the dense network's outputs, nats.
        agreement: Images with the dense network's first class, percent.
        top1: Accuracy in percent; None where nothing was scored.
        seconds: How long it took; None where that was not measured.
    """

    name: str
    loss: float
    agreement: float
    top1: float | None
    seconds: float | None


def stages_of(rows: Sequence[RepairRow]) -> list[RepairStage]:
    """The stages of one run, in order."""
    return [
        RepairStage(
            row.steps.replace(";", ", "),
            row.loss,
            row.agreement,
            row.top1,
            row.duration if row.stage else None,
        )
        for row in sorted(rows, key=lambda row: row.stage)
    ]


def measures_of(stages: Sequence[RepairStage]) -> dict[str, list[float | None]]:
    """What a figure shows of stages, in percent; accuracy only where any was scored."""
    found: dict[str, list[float | None]] = {
        "agreement with the dense network": [stage.agreement for stage in stages],
        "top-1 accuracy": [stage.top1 for stage in stages],
    }
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def repair_table(rows: Sequence[RepairRow]) -> tuple[TextTable, str]:
    """A row for each stage of a run; and what was pruned, repaired and scored."""
    stages = stages_of(rows)
    scored = any(stage.top1 is not None for stage in stages)
    lines: list[list[str]] = []
    for stage in stages:
        top1 = [] if not scored else ["" if stage.top1 is None else f"{stage.top1:.1f}"]
        seconds = "" if stage.seconds is None else f"{stage.seconds:.1f}"
        numbers = [f"{stage.loss:.4g}", f"{stage.agreement:.1f}"]
        lines.append([stage.name, *numbers, *top1, seconds])
    heads = ["loss", "agreement, %", *(["top-1, %"] * scored), "seconds"]
    last = max(rows, key=lambda row: row.stage)
    return TextTable([last.model, *heads], lines), describe_repair(last)


def describe_repair(row: RepairRow) -> str:
    """What was pruned, on which images it was repaired, and on which it was scored."""
    ranked = ranking(row.granularity, _ranked_within(row), row.score)
    chosen = ranked if row.p_prune is None else f"{percent(row.p_prune)} of the {ranked}"
    named = row.allocation in ("uniform", "erk")
    allocated = f", allocation {row.allocation}" if named else ""
    parts = [
        f"{row.prunable - row.kept:,} of {counted(row.prunable, 'weight')} pruned "
        f"({chosen}{allocated})",
        f"repaired from {counted(row.calibration_count, 'unlabelled image')} of "
        f"{PurePath(row.calibration).name}",
        "loss (divergence from the dense network) and agreement with it on the first of them",
    ]
    if row.count:
        split = f" ({row.split})" if row.split else ""
        parts.append(f"top-1 on {counted(row.count, 'image')} of {PurePath(row.data).name}{split}")
    return "; ".join(parts) + "."


def _ranked_within(row: RepairRow) -> str:
    """The scope in which units were ranked: with a ratio for each layer, that layer."""
    if row.allocation.startswith("file "):
        return f"ratios {row.allocation.removeprefix('file ')}"
    return "layer" if row.allocation in ("uniform", "erk") else row.scope


def repair_figure(rows: Sequence[RepairRow], title: str | None) -> "Figure":
    """Agreement and accuracy after each stage of a run."""
    stages = stages_of(rows)
    last = max(rows, key=lambda row: row.stage)
    return stages_figure(stages, title or last.model, describe_repair(last))


def stages_figure(stages: Sequence[RepairStage], title: str | None, note: str) -> "Figure":
    """Stages of a repair in the order in which they are given.

    Bars show the agreement with the dense network on calibration images, and the accuracy where
    labelled images were scored; the loss is written below the name of each stage.
    """
    wide = _STAGE * max(len(stages), 3)
    figure = new_figure(_LEFT + wide + _RIGHT, _BOTTOM + _HEIGHT + _LEGEND, title, note)
    axes = add_axes(figure, _LEFT, _BOTTOM, wide, _HEIGHT)
    style_axes(axes)
    shown = measures_of(stages)
    thick = 0.6 / len(shown)
    for number, (name, values) in enumerate(shown.items()):
        colour = _COLOURS[number]
        middles = [at + thick * (number - (len(shown) - 1) / 2) for at in range(len(stages))]
        bars = axes.bar(middles, [v or 0.0 for v in values], 0.92 * thick, color=colour, label=name)
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=7.5, color=colour)
    names = ["\n".join(wrap(printable(stage.name), _STAGE - 6)) for stage in stages]
    losses = [f"loss {stage.loss:.3g}" for stage in stages]
    ticks = [f"{name}\n{loss}" for name, loss in zip(names, losses, strict=True)]
    axes.set_xticks(range(len(stages)), ticks, fontsize=7.5)
    axes.set_xlim(-0.5, max(len(stages), 3) - 0.5)
    axes.set_ylim(0, 100)
    axes.set_ylabel("Images (%)", labelpad=5)
    axes.legend(
        frameon=False, fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1.04), ncols=2,
        borderpad=0, borderaxespad=1.2,
    )  # fmt: skip
    return figure


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
