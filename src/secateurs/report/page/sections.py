"""The sections of rows, by their kind."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from secateurs._io.text import counted, printable
from secateurs.report.page.budget_section import budget_section
from secateurs.report.page.page_parts import Section, Table, text_cell
from secateurs.report.page.repair_section import repair_section
from secateurs.report.page.retrain_section import retrain_section
from secateurs.report.page.sensitivity_section import sensitivity_section
from secateurs.report.page.speed_section import speed_section
from secateurs.report.page.sweep_section import sweep_section
from secateurs.report.page.transfer_section import transfer_sections
from secateurs.report.plot import Axis
from secateurs.results import (
    BudgetRow,
    Record,
    RepairRow,
    RetrainRow,
    Row,
    SensitivityRow,
    SpeedRow,
    TransferRow,
)


def rows_sections(rows: Sequence[Any], x: Axis = "achieved") -> list[Section]:
    """The sections of rows of one kind; of a kind without its own, a table of all columns.

    Args:
        rows: At least one.
        x: The horizontal axis of sweeps.
    """
    make = _MAKERS.get(type(rows[0]))
    return make(rows, x) if make else [_all_columns(rows)]


_MAKERS: Mapping[type[Record], Callable[[Any, Axis], list[Section]]] = {
    Row: lambda rows, x: [sweep_section(rows, x)],
    RetrainRow: lambda rows, _: [retrain_section(rows)],
    TransferRow: lambda rows, _: transfer_sections(rows),
    RepairRow: lambda rows, _: [repair_section(rows)],
    SpeedRow: lambda rows, _: [speed_section(rows)],
    SensitivityRow: lambda rows, _: [sensitivity_section(rows)],
    BudgetRow: lambda rows, _: [budget_section(rows)],
}
"""What makes the sections of a kind of rows; a new kind has a new line here."""

ALONE = frozenset({RetrainRow, RepairRow, SensitivityRow, BudgetRow})
"""Kinds whose runs have sections of their own; runs of other kinds are compared in one."""


def _all_columns(rows: Sequence[Record]) -> Section:
    columns = type(rows[0]).columns()
    cells = [[text_cell(printable(str(getattr(row, name)))) for name in columns] for row in rows]
    kind = rows[0].KIND
    return Section(
        f"Rows of a {kind}", f"{counted(len(rows), 'row')}.", tables=[Table("", columns, cells)]
    )
