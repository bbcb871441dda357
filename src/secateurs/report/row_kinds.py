"""The kinds of result rows, and how each is shown: in tables, plots and sections of a page."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.budget_report import budget_figure, budget_markdown, print_budgets
from secateurs.report.figure import write_figure
from secateurs.report.page.budget_section import budget_section
from secateurs.report.page.page_parts import Section, Table, cell
from secateurs.report.page.retrain_section import retrain_section
from secateurs.report.page.sweep_section import sweep_section
from secateurs.report.page.transfer_section import transfer_sections
from secateurs.report.repair_stages import repair_figure, repair_section, repair_table
from secateurs.report.retrain_outcomes import outcome_table, retrain_figure
from secateurs.report.sensitivity_report import (
    sensitivity_figure,
    sensitivity_section,
    sensitivity_table,
)
from secateurs.report.speed_report import (
    print_speed,
    speed_figure,
    speed_markdown,
    speed_section,
)
from secateurs.report.sweep_report import Axis, print_sweep, sweep_figure, sweep_markdown
from secateurs.report.text_table import TextTable, show_tables
from secateurs.report.transfer_curves import plot_transfer_curves
from secateurs.report.transfer_heatmap import plot_transfer_heatmap
from secateurs.report.transfer_table import print_transfer, transfer_markdown
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


Runs = Sequence[Sequence[Any]]
"""The rows of each run."""


@dataclass(frozen=True)
class RowKind:
    """How rows of one kind are shown; the functions of a kind get rows that are safe to print.

    Attributes:
        show: Prints the tables of runs in a terminal.
        markdown: Makes the tables of runs in Markdown.
        sections: Makes the sections of a page; the last argument is the horizontal axis of sweeps.
        figure: Makes the figure with a title; the last argument is the axis. None for transfers,
            which have two figures.
        alone: Whether each run has a plot and a section of its own; runs of other kinds are
            compared in one.
    """

    show: Callable[[Runs, "Console | None"], object]
    markdown: Callable[[Runs], str]
    sections: Callable[[Any, Axis], list[Section]]
    figure: Callable[[Any, str | None, Axis], "Figure"] | None
    alone: bool = False

    def print_tables(self, runs: Runs, console: "Console | None" = None) -> None:
        """Print the tables of runs."""
        self.show([_safe(rows) for rows in runs], console)

    def markdown_tables(self, runs: Runs) -> str:
        """The tables of runs in Markdown."""
        return self.markdown([_safe(rows) for rows in runs])

    def plot(self, rows: Sequence[Any], stem: Path, title: str | None, x: Axis) -> list[Path]:
        """Write the figures of rows as PNG and as SVG, and return the paths."""
        draw = self.figure
        if draw is not None:
            return write_figure(lambda: draw(_safe(rows), title, x), stem)
        heatmap, curves = (stem.with_name(f"{stem.name}-{name}") for name in ("heatmap", "curves"))
        return [
            *plot_transfer_heatmap(rows, heatmap, title=title),
            *plot_transfer_curves(rows, curves, title=title),
        ]


def _safe(rows: Sequence[Any]) -> list[Any]:
    return [row.printable() for row in rows]


def joined(runs: Iterable[Sequence[Any]]) -> list[Any]:
    """The rows of all runs in one list."""
    return [row for rows in runs for row in rows]


def _with_notes(
    tables: Callable[[Runs], Iterable[tuple[TextTable, str]]],
) -> tuple[Callable[[Runs, "Console | None"], object], Callable[[Runs], str]]:
    """How to print tables that have a note each, and how to make them in Markdown."""
    return (
        lambda runs, console: [show_tables(console, [own], note) for own, note in tables(runs)],
        lambda runs: "\n".join(own.markdown(note) for own, note in tables(runs)),
    )


ROW_KINDS: Mapping[type[Record], RowKind] = {
    Row: RowKind(
        lambda runs, console: print_sweep(joined(runs), console),
        lambda runs: sweep_markdown(joined(runs)),
        lambda rows, x: [sweep_section(rows, x)],
        sweep_figure,
    ),
    TransferRow: RowKind(
        lambda runs, console: print_transfer(joined(runs), console),
        lambda runs: transfer_markdown(joined(runs)),
        lambda rows, _: transfer_sections(rows),
        None,
    ),
    SpeedRow: RowKind(
        lambda runs, console: print_speed(joined(runs), console),
        lambda runs: speed_markdown(joined(runs)),
        lambda rows, _: [speed_section(rows)],
        lambda rows, title, _: speed_figure(rows, title),
    ),
    SensitivityRow: RowKind(
        *_with_notes(lambda runs: map(sensitivity_table, runs)),
        lambda rows, _: [sensitivity_section(rows)],
        lambda rows, title, _: sensitivity_figure(rows, title),
        alone=True,
    ),
    RetrainRow: RowKind(
        *_with_notes(lambda runs: [outcome_table(runs)]),
        lambda rows, _: [retrain_section(rows)],
        lambda rows, title, _: retrain_figure(rows, title),
        alone=True,
    ),
    BudgetRow: RowKind(
        print_budgets,
        lambda runs: "\n".join(map(budget_markdown, runs)),
        lambda rows, _: [budget_section(rows)],
        lambda rows, title, _: budget_figure(rows, title),
        alone=True,
    ),
    RepairRow: RowKind(
        *_with_notes(lambda runs: map(repair_table, runs)),
        lambda rows, _: [repair_section(rows)],
        lambda rows, title, _: repair_figure(rows, title),
        alone=True,
    ),
}
"""What shows the rows of each command; a new kind of rows has its entry here."""


def print_table(rows: Sequence[Record], console: "Console | None" = None) -> None:
    """Print the tables of rows, and what their numbers mean.

    Args:
        rows: Of one command, in any order. Those of a retraining may be of several seeds.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: There are no rows, or no finished seed of a retraining.
    """
    kind_of(rows).print_tables([rows], console)


def markdown_table(rows: Sequence[Record]) -> str:
    """The tables of rows in Markdown, each with a line below that says what its numbers mean.

    Args:
        rows: Of one command, in any order. Those of a retraining may be of several seeds.

    Raises:
        InvalidArgumentError: There are no rows, or no finished seed of a retraining.
    """
    return kind_of(rows).markdown_tables([rows])


def plot_rows(
    rows: Sequence[Record],
    path_stem: str | os.PathLike[str],
    *,
    title: str | None = None,
    x: Axis = "achieved",
) -> list[Path]:
    """Draw rows, as PNG and as SVG.

    Of sweeps top-1 accuracy against the ratio, a line for each setting; of a sensitivity run a heat
    map of the layers; of a budget the drop of each network that was tried; of a retraining accuracy
    and sparsity of each epoch; of a repair agreement and accuracy after each stage; of speed images
    a second against zeros. Of transfers both `plot_transfer_heatmap` and `plot_transfer_curves`,
    with ``-heatmap`` and ``-curves`` added to the path. Text in the SVG stays text, and the same
    rows give the same files.

    Args:
        rows: Of one command, in any order.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; by default what the rows are of.
        x: The horizontal axis of sweeps: "achieved", the ratio of weights (elements) that were
            pruned, so that granularities can be compared, or "p_prune", the ratio of units asked
            for.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows, or `x` is something else.
        FailureError: The files cannot be written.
    """
    return kind_of(rows).plot(rows, Path(path_stem), title, x)


def kind_of(rows: Sequence[Record]) -> RowKind:
    """How some rows are shown.

    Raises:
        InvalidArgumentError: There are no rows, or they are not of a command.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show: let a run finish first")
    found = ROW_KINDS.get(type(rows[0]))
    if found is None:
        raise InvalidArgumentError(
            f"there is no table and no plot of a {type(rows[0]).__name__}: give rows that a "
            "command wrote"
        )
    return found


def rows_sections(rows: Sequence[Any], x: Axis = "achieved") -> list[Section]:
    """The sections of rows of one kind; of a kind without its own, a table of all columns.

    Args:
        rows: At least one.
        x: The horizontal axis of sweeps.
    """
    rows, kind = _safe(rows), ROW_KINDS.get(type(rows[0]))
    if kind is not None:
        return kind.sections(rows, x)
    names = type(rows[0]).columns()
    cells = [{name: cell(str(getattr(row, name))) for name in names} for row in rows]
    said = f"{counted(len(rows), 'row')}."
    return [Section(f"Rows of a {rows[0].KIND}", said, tables=[Table.of("", cells)])]
