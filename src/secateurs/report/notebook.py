"""What a notebook shows of rows and of layers: tables in HTML, and figures of matplotlib."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from secateurs._io.text import printable
from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import add_axes, made_figure, new_figure, style_axes
from secateurs.report.grouping import shown_benchmarks
from secateurs.report.labels import text_width
from secateurs.report.page.page_parts import Table, TableCell, cell
from secateurs.report.repair_stages import STAGE_HEADS, RepairStage, stage_cells, stages_figure
from secateurs.report.row_kinds import kind_of, rows_sections
from secateurs.report.sweep_report import Axis
from secateurs.report.transfer_curves import curves_figure
from secateurs.report.transfer_groups import Goal
from secateurs.report.transfer_heatmap import heatmap_figure
from secateurs.results import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 100
"""Rows of a table that a notebook shows."""


Layer = tuple[str, tuple[int, ...], int, int]
"""The name and shape of a parameter, how many of its elements are zero, and how many it has."""


StageValues = tuple[str, float, float, float | None, float | None]
"""The values of a `RepairStage`, as packages give them that do not import this one."""


def rows_html(rows: Sequence[Record]) -> str:
    """The headline and the table of rows, as on a page."""
    if not rows:
        return "<p>no rows</p>"
    return "".join(
        f"<p>{escape(section.headline)}</p>{table_html(section.tables[0])}"
        for section in rows_sections(rows)
    )


def rows_figure(
    rows: Sequence[Any],
    *,
    title: str | None = None,
    x: Axis = "achieved",
    kind: Literal["heatmap", "curves"] = "heatmap",
    outcome: Goal | None = None,
) -> "Figure":
    """Draw rows, see `secateurs.results.Rows.plot`."""
    draw_rows = kind_of(rows).figure
    if draw_rows is not None:
        safe = [row.printable() for row in rows]
        return made_figure(lambda: draw_rows(safe, title, x))
    if kind not in ("heatmap", "curves"):
        raise InvalidArgumentError(f'kind is {kind!r}; give "heatmap" or "curves"')
    found = shown_benchmarks(rows, "plot", outcome)
    if len(found) > 1:
        raise InvalidArgumentError(
            f"these rows are of {len(found)} protocols or sets of images, and a figure shows one: "
            "plot the rows of one method, data and eps"
        )
    _, benchmark, chosen = found[0]
    draw = heatmap_figure if kind == "heatmap" else curves_figure
    return made_figure(lambda: draw(benchmark, chosen, title))


def table_html(table: Table) -> str:
    """A table as HTML, its texts escaped; of a long one the first rows."""
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    lines = [f"<tr>{''.join(map(_cell_html, row))}</tr>" for row in table.rows[:_MOST]]
    more = len(table.rows) - _MOST
    note = f"<p>and {more:,} more rows</p>" if more > 0 else ""
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return (
        f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        f"{note}"
    )


def _cell_html(shown: TableCell) -> str:
    style = ' style="text-align: right"' if shown.number is not None else ""
    return f"<td{style}>{escape(shown.text)}</td>"


def stages_html(stages: Sequence[StageValues]) -> str:
    """A table of the network after each step of a repair."""
    cells = [stage_cells(RepairStage(*stage)) for stage in stages]
    return table_html(Table("", STAGE_HEADS, cells))


def stages_drawn(stages: Sequence[StageValues], *, title: str | None = None) -> "Figure":
    """Draw agreement and accuracy after each step of a repair.

    Raises:
        InvalidArgumentError: There are no steps.
    """
    if not stages:
        raise InvalidArgumentError("there are no steps to draw")
    return made_figure(lambda: stages_figure([RepairStage(*s) for s in stages], title, ""))


def layers_html(layers: Sequence[Layer]) -> str:
    """What is pruned in each layer."""
    rows = [
        [
            cell(printable(name)),
            cell(" x ".join(map(str, shape))),
            cell(zeros, "{:,}"),
            cell(total, "{:,}"),
            cell(100 * zeros / max(total, 1), "{:.2f}%"),
        ]
        for name, shape, zeros, total in layers
    ]
    return table_html(Table("", ["layer", "shape", "zero", "of", "ratio"], rows))


def layers_figure(layers: Sequence[Layer], *, title: str | None = None) -> "Figure":
    """Draw what is kept of each layer as bars, in percent.

    Raises:
        InvalidArgumentError: There are no layers.
    """
    if not layers:
        raise InvalidArgumentError("there are no layers to draw")
    return made_figure(lambda: _bars(layers, title))


def _bars(layers: Sequence[Layer], title: str | None) -> "Figure":
    names = [printable(name) for name, *_ in layers]
    left, bottom, wide, high = max(text_width(n, 7.5) for n in names) + 16, 36.0, 260.0, 13.0
    tall = high * len(names) + 6
    figure = new_figure(left + wide + 44, bottom + tall, title)
    axes = add_axes(figure, left, bottom, wide, tall)
    kept = [100 * (1 - zeros / max(total, 1)) for *_, zeros, total in layers]
    axes.barh(range(len(names)), kept, height=0.7, color="#0072B2")
    for number, value in enumerate(kept):
        axes.text(value + 1, number, f"{value:.1f}", va="center_baseline", fontsize=7)
    style_axes(axes)
    axes.grid(visible=False)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Weights kept (%)")
    return figure
