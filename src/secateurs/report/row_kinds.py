"""The kinds of result rows, and how each is shown: in tables, plots and sections of a page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted, printable
from secateurs.report.budget_plot import budget_figure
from secateurs.report.budget_table import budget_markdown, print_budget_table
from secateurs.report.figure import write_figure
from secateurs.report.page.budget_section import budget_section
from secateurs.report.page.page_parts import Section, Table, cell
from secateurs.report.page.repair_section import repair_section
from secateurs.report.page.retrain_section import retrain_section
from secateurs.report.page.sensitivity_section import sensitivity_section
from secateurs.report.page.speed_section import speed_section
from secateurs.report.page.sweep_section import sweep_section
from secateurs.report.page.transfer_section import transfer_sections
from secateurs.report.plot import Axis, sweep_figure
from secateurs.report.repair_plot import repair_figure
from secateurs.report.repair_stages import print_repair_table, repair_table
from secateurs.report.retrain_curves import retrain_figure
from secateurs.report.retrain_outcomes import print_retrain_table, retrain_table
from secateurs.report.sensitivity_heatmap import sensitivity_figure
from secateurs.report.sensitivity_table import print_sensitivity_table, sensitivity_markdown
from secateurs.report.speed_plot import speed_figure
from secateurs.report.speed_table import print_speed_table, speed_table_markdown
from secateurs.report.table import markdown_table, print_table
from secateurs.report.transfer_curves import plot_transfer_curves
from secateurs.report.transfer_heatmap import plot_transfer_heatmap
from secateurs.report.transfer_table import print_transfer_table, transfer_table_markdown
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console


@dataclass(frozen=True)
class RowKind:
    """How rows of one kind are shown.

    Attributes:
        markdown: Makes the tables in Markdown, from the rows of each run.
        show: Prints the tables in a terminal, from the rows of each run.
        sections: Makes the sections of a page; the last argument is the horizontal axis of sweeps.
        figure: Makes the figure with a title; the last argument is the axis. None for transfers,
            which have two figures.
        alone: Whether each run has a plot and a section of its own; runs of other kinds are
            compared in one.
    """

    markdown: Callable[[Sequence[Any]], str]
    show: Callable[[Sequence[Any], "Console"], object]
    sections: Callable[[Any, Axis], list[Section]]
    figure: Callable[[Any, str | None, Axis], "Figure"] | None
    alone: bool = False

    def plot(self, rows: Sequence[Any], stem: Path, title: str | None, x: Axis) -> list[Path]:
        """Write the figures of rows as PNG and as SVG, and return the paths."""
        draw = self.figure
        if draw is not None:
            return write_figure(lambda: draw(rows, title, x), stem)
        heatmap, curves = (stem.with_name(f"{stem.name}-{name}") for name in ("heatmap", "curves"))
        return [
            *plot_transfer_heatmap(rows, heatmap, title=title),
            *plot_transfer_curves(rows, curves, title=title),
        ]


def joined(runs: Iterable[Sequence[Any]]) -> list[Any]:
    """The rows of all runs in one list."""
    return [row for rows in runs for row in rows]


ROW_KINDS: Mapping[type[Record], RowKind] = {
    Row: RowKind(
        lambda runs: markdown_table(joined(runs)),
        lambda runs, console: print_table(joined(runs), console),
        lambda rows, x: [sweep_section(rows, x)],
        sweep_figure,
    ),
    TransferRow: RowKind(
        lambda runs: transfer_table_markdown(joined(runs)),
        lambda runs, console: print_transfer_table(joined(runs), console),
        lambda rows, _: transfer_sections(rows),
        None,
    ),
    SpeedRow: RowKind(
        lambda runs: speed_table_markdown(joined(runs)),
        lambda runs, console: print_speed_table(joined(runs), console),
        lambda rows, _: [speed_section(rows)],
        lambda rows, title, _: speed_figure(rows, title),
    ),
    SensitivityRow: RowKind(
        lambda runs: "\n".join(map(sensitivity_markdown, runs)),
        lambda runs, console: [print_sensitivity_table(rows, console) for rows in runs],
        lambda rows, _: [sensitivity_section(rows)],
        lambda rows, title, _: sensitivity_figure(rows, title),
        alone=True,
    ),
    RetrainRow: RowKind(
        retrain_table,
        print_retrain_table,
        lambda rows, _: [retrain_section(rows)],
        lambda rows, title, _: retrain_figure(rows, title),
        alone=True,
    ),
    BudgetRow: RowKind(
        budget_markdown,
        print_budget_table,
        lambda rows, _: [budget_section(rows)],
        lambda rows, title, _: budget_figure(rows, title),
        alone=True,
    ),
    RepairRow: RowKind(
        repair_table,
        print_repair_table,
        lambda rows, _: [repair_section(rows)],
        lambda rows, title, _: repair_figure(rows, title),
        alone=True,
    ),
}
"""What shows the rows of each command; a new kind of rows has its entry here."""


def rows_sections(rows: Sequence[Any], x: Axis = "achieved") -> list[Section]:
    """The sections of rows of one kind; of a kind without its own, a table of all columns.

    Args:
        rows: At least one.
        x: The horizontal axis of sweeps.
    """
    kind = ROW_KINDS.get(type(rows[0]))
    if kind is not None:
        return kind.sections(rows, x)
    columns = type(rows[0]).columns()
    cells = [[cell(printable(str(getattr(row, name)))) for name in columns] for row in rows]
    title = f"Rows of a {rows[0].KIND}"
    said = f"{counted(len(rows), 'row')}."
    return [Section(title, said, tables=[Table("", columns, cells)])]
