"""What each stage of a repair came to: loss, agreement with the dense network, accuracy."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from secateurs.errors import InvalidArgumentError
from secateurs.report.names import ranking
from secateurs.report.table import percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import RepairRow

if TYPE_CHECKING:
    from rich.console import Console


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


def _table(rows: Sequence[RepairRow]) -> TextTable:
    if not rows:
        raise InvalidArgumentError("there are no rows to show: let the repair finish first")
    rows = sorted((row.printable() for row in rows), key=lambda row: row.stage)
    scored = any(row.count for row in rows)
    lines: list[list[str]] = []
    for row in rows:
        top1 = [] if not scored else ["" if row.top1 is None else f"{row.top1:.1f}"]
        seconds = f"{row.duration:.1f}" if row.stage else ""
        what = row.steps.replace(";", ", ")
        lines.append([what, f"{row.loss:.4g}", f"{row.agreement:.1f}", *top1, seconds])
    heads = [rows[0].model, "loss", "agreement, %", *(["top-1, %"] * scored), "seconds"]
    return TextTable(heads, lines)


def _note(rows: Sequence[RepairRow]) -> str:
    return describe_repair(max(rows, key=lambda row: row.stage).printable())


def describe_repair(row: RepairRow) -> str:
    """What was pruned, on which images it was repaired, and on which it was scored."""
    asked = row.allocation if row.p_prune is None else percent(row.p_prune)
    allocated = f", allocation {row.allocation}" if row.allocation and row.p_prune else ""
    parts = [
        f"{row.prunable - row.kept:,} of {row.prunable:,} weights pruned ({asked} of the "
        f"{ranking(row.granularity, row.scope, row.score)}{allocated})",
        f"repaired from {row.calibration_count:,} unlabelled images of "
        f"{PurePath(row.calibration).name}",
        "loss (divergence from the dense network) and agreement with it on the first of them",
    ]
    if row.count:
        split = f" ({row.split})" if row.split else ""
        parts.append(f"top-1 on {row.count:,} images of {PurePath(row.data).name}{split}")
    return "; ".join(parts) + "."
