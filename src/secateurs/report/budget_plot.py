"""The figure of a budget: the drop of accuracy of each network that was tried."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secateurs.report.budget_table import (
    chosen_row,
    describe_budget,
    headline_of,
    points_text,
)
from secateurs.report.figure import add_axes, new_figure, style_axes, write_figure
from secateurs.results import BudgetRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PASSED, _FAILED, _ALLOWED = "#0072B2", "#D55E00", "#555555"
# In points (1/72 inch).
_WIDTH, _HEIGHT = 330.0, 190.0
_LEFT, _BOTTOM, _RIGHT = 46.0, 38.0, 70.0


def plot_budget(
    rows: Sequence[BudgetRow], path_stem: str | os.PathLike[str], *, title: str | None = None
) -> list[Path]:
    """Draw the drop of top-1 of each network that was tried, as PNG and as SVG.

    A bar goes from the drop up to its limit at the confidence of the claim; the drop that was
    allowed is dashed. Drops of more than four times that are drawn as triangles at the upper edge.

    Args:
        rows: The rows of one run.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; default the claim.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows.
        FailureError: The files cannot be written.
    """
    return write_figure(lambda: budget_figure(rows, title), path_stem)


def highest_shown(rows: Sequence[BudgetRow]) -> float:
    """The drop at which a chart of a budget ends: networks far beyond would squeeze the rest."""
    most = max(row.drop_high for row in rows)
    return min(1.1 * max(most, rows[0].max_drop), 4 * rows[0].max_drop)


def budget_figure(rows: Sequence[BudgetRow], title: str | None) -> "Figure":
    """The figure of `plot_budget`."""
    chosen_row(rows)  # refuses an empty list
    rows = sorted((row.printable() for row in rows), key=lambda row: row.p_prune)
    first = rows[0]
    title = title or f"{first.model}: top-1 may drop by {points_text(first.max_drop)}"
    said = f"bar: up to the limit at {100 * first.confidence:g}% confidence"
    note = f"{headline_of(rows)} {describe_budget(rows)}; {said}"
    figure = new_figure(_LEFT + _WIDTH + _RIGHT, _BOTTOM + _HEIGHT, title, note)
    axes = add_axes(figure, _LEFT, _BOTTOM, _WIDTH, _HEIGHT)
    style_axes(axes)
    top = highest_shown(rows)
    axes.set_xlim(100 * rows[0].p_prune - 3, 100 * rows[-1].p_prune + 3)
    axes.set_ylim(min(0.0, 1.1 * min(row.drop for row in rows)) - 0.03 * top, top)
    axes.set_xlabel(f"Ratio that is pruned (% of {first.granularity}s)", labelpad=5)
    axes.set_ylabel("Drop of top-1 (points)", labelpad=5)
    axes.axhline(first.max_drop, color=_ALLOWED, linewidth=0.9, dashes=(5, 3), zorder=1.5)
    axes.annotate(
        f"allowed: {first.max_drop:g}", (1, first.max_drop), (4, 0), color=_ALLOWED,
        xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
    )  # fmt: skip
    ratios, drops = [100 * row.p_prune for row in rows], [min(row.drop, top) for row in rows]
    axes.plot(ratios, drops, color=_ALLOWED, linewidth=0.7, alpha=0.6, zorder=1.5)
    for passed, colour, marker, name in (
        (True, _PASSED, "o", "passed"),
        (False, _FAILED, "X", "failed"),
    ):
        own = [row for row in rows if row.passed == passed]
        _draw(axes, [row for row in own if row.drop <= top], colour, marker, name)
        above = [100 * row.p_prune for row in own if row.drop > top]
        axes.plot(above, [top] * len(above), "^", color=colour, clip_on=False, markersize=6)
    axes.legend(frameon=False, fontsize=7.5, loc="upper left")
    return figure


def _draw(axes: "Axes", rows: Sequence[BudgetRow], colour: str, marker: str, name: str) -> None:
    if not rows:
        return
    ratios, drops = [100 * row.p_prune for row in rows], [row.drop for row in rows]
    limits = [row.drop_high for row in rows]
    axes.vlines(ratios, drops, limits, color=colour, linewidth=1.2)
    axes.plot(ratios, limits, "_", color=colour, markersize=6)
    axes.plot(ratios, drops, marker, color=colour, markersize=5.5, label=name)
