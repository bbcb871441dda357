"""The network after each stage of a repair: loss, agreement with the dense network, accuracy."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.names import ranking
from secateurs.report.number_text import percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import RepairRow

if TYPE_CHECKING:
    from rich.console import Console


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


def repair_table(runs: Sequence[Sequence[RepairRow]]) -> str:
    """The stages of one or more repairs as Markdown tables, each with a line that says what it is.

    Args:
        runs: The rows of each run.

    Raises:
        InvalidArgumentError: A run has no rows.
    """
    return "\n".join(f"{_table(rows).markdown()}\n\n{_note(rows)}\n" for rows in runs)


def print_repair_table(
    runs: Sequence[Sequence[RepairRow]], console: "Console | None" = None
) -> None:
    """Print the stages of one or more repairs.

    Args:
        runs: The rows of each run.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: A run has no rows.
    """
    for rows in runs:
        show_tables(console, [_table(rows)], _note(rows))


def stages_of(rows: Sequence[RepairRow]) -> list[RepairStage]:
    """The stages of one run, in order.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show: let the repair finish first")
    return [
        RepairStage(
            row.steps.replace(";", ", "),
            row.loss,
            row.agreement,
            row.top1,
            row.duration if row.stage else None,
        )
        for row in sorted((row.printable() for row in rows), key=lambda row: row.stage)
    ]


def measures_of(stages: Sequence[RepairStage]) -> dict[str, list[float | None]]:
    """What a figure shows of stages, in percent; accuracy only where any was scored."""
    found: dict[str, list[float | None]] = {
        "agreement with the dense network": [stage.agreement for stage in stages],
        "top-1 accuracy": [stage.top1 for stage in stages],
    }
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def _table(rows: Sequence[RepairRow]) -> TextTable:
    stages = stages_of(rows)
    scored = any(stage.top1 is not None for stage in stages)
    lines: list[list[str]] = []
    for stage in stages:
        top1 = [] if not scored else ["" if stage.top1 is None else f"{stage.top1:.1f}"]
        seconds = "" if stage.seconds is None else f"{stage.seconds:.1f}"
        numbers = [f"{stage.loss:.4g}", f"{stage.agreement:.1f}"]
        lines.append([stage.name, *numbers, *top1, seconds])
    heads = ["loss", "agreement, %", *(["top-1, %"] * scored), "seconds"]
    return TextTable([rows[0].printable().model, *heads], lines)


def _note(rows: Sequence[RepairRow]) -> str:
    return describe_repair(max(rows, key=lambda row: row.stage).printable())


def describe_repair(row: RepairRow) -> str:
    """What was pruned, on which images it was repaired, and on which it was scored."""
    ranked = ranking(row.granularity, row.scope, row.score)
    chosen = ranked if row.p_prune is None else f"{percent(row.p_prune)} of the {ranked}"
    allocated = f", allocation {row.allocation}" if row.allocation else ""
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
