"""The part of a page that shows a repair: what each stage came to."""

from collections.abc import Sequence

from secateurs.report.page.page_parts import Fact, Section, Table, number_cell, text_cell
from secateurs.report.repair_stages import describe_repair
from secateurs.results import RepairRow


def repair_section(rows: Sequence[RepairRow]) -> Section:
    """The headline and the table of one run."""
    rows = sorted((row.printable() for row in rows), key=lambda row: row.stage)
    last, pruned = rows[-1], next((row for row in rows if row.stage == 1), rows[-1])
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
        tables=[_table(rows)],
    )


def _fact(row: RepairRow) -> Fact:
    """Top-1 after a stage, or where nothing was scored the agreement with the dense network."""
    steps = row.steps.replace(";", ", ")
    if row.top1 is None:
        return Fact(f"{row.agreement:.1f}%", f"agreement, {steps}")
    return Fact(f"{row.top1:.1f}%", f"top-1, {steps}")


def _table(rows: Sequence[RepairRow]) -> Table:
    heads = ["stage", "loss", "agreement %", "top-1 %", "seconds"]
    cells = [
        [
            text_cell(row.steps.replace(";", ", ")),
            number_cell(row.loss, "{:.3g}"),
            number_cell(row.agreement, "{:.1f}"),
            number_cell(row.top1, "{:.1f}"),
            number_cell(row.duration if row.stage else None, "{:.1f}"),
        ]
        for row in rows
    ]
    return Table("Each stage", heads, cells)
