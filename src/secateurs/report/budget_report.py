"""The table and the figure of a budget: every network that was tried, and what is claimed."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from secateurs._console import make_console
from secateurs._io.text import counted
from secateurs.report.figure import add_axes, new_figure, style_axes
from secateurs.report.names import ranking
from secateurs.report.number_text import percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import BudgetRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

_PASSED, _FAILED, _ALLOWED = "#0072B2", "#D55E00", "#555555"
# In points (1/72 inch).
_WIDTH, _HEIGHT = 330.0, 190.0
_LEFT, _BOTTOM, _RIGHT = 46.0, 38.0, 70.0


def chosen_row(rows: Sequence[BudgetRow]) -> BudgetRow | None:
    """The sparsest network that passed; None if none did."""
    return max((row for row in rows if row.passed), key=lambda row: row.p_prune, default=None)


def undecided_row(rows: Sequence[BudgetRow]) -> BudgetRow | None:
    """The least sparse network that failed, if more images could show that it passes."""
    failed = min((r for r in rows if not r.passed), key=lambda row: row.p_prune, default=None)
    return failed if failed and failed.needed is not None else None


def passes_over_images(rows: Sequence[BudgetRow]) -> float:
    """How many passes over all images the search took, that of the dense network included."""
    return 1 + sum(row.count for row in rows) / max(rows[0].images, 1)


def describe_budget(rows: Sequence[BudgetRow]) -> str:
    """The images, the ranking and the repair, in one line."""
    row = rows[0]
    split = f" ({row.split})" if row.split else ""
    parts = [
        f"{counted(row.images, 'image')} of {PurePath(row.data).name or 'the loader'}{split}",
        f"dense {row.dense_top1:.2f}% right",
        ranking(row.granularity, row.scope, row.score),
    ]
    images = counted(row.calibration_count, "image")
    if row.repair:
        parts.append(f"repaired by {row.repair.replace(';', ' and ')} from {images}")
    elif row.calibration_count:
        parts.append(f"{row.score} scores from {images}")
    return "; ".join(parts)


def points_text(number: float) -> str:
    """A number of percentage points with its unit."""
    return "1 point" if number == 1 else f"{number:g} points"


def headline_of(rows: Sequence[BudgetRow]) -> str:
    """What is claimed, in one sentence."""
    best, first = chosen_row(rows), rows[0]
    sure = f"with {100 * first.confidence:g}% confidence"
    points = points_text(first.max_drop)
    if best is None:
        return f"No pruned network of {first.model} drops {sure} by less than {points}."
    return (
        f"{percent(best.p_prune)} of the {best.granularity}s of {best.model} pruned, and top-1 "
        f"drops {sure} by less than {points}."
    )


def claim_lines(rows: Sequence[BudgetRow]) -> list[str]:
    """What is claimed, what a sparser network would need, and how much was scored."""
    best, first, open_ = chosen_row(rows), rows[0], undecided_row(rows)
    sure = f"with {100 * first.confidence:g}% confidence"
    lines = [f"no pruned network drops {sure} by less than {points_text(first.max_drop)}"]
    if best:
        lines = [
            f"{percent(best.p_prune)} pruned: top-1 {best.dense_top1:.2f} to "
            f"{best.dense_top1 - best.drop:.2f}, a drop of {best.drop:.2f} points, {sure} below "
            f"{best.drop_high:.2f} (asked: {best.max_drop:g}), on {counted(best.count, 'image')}"
        ]
    if open_:
        lines.append(
            f"{percent(open_.p_prune)} pruned: a drop of {open_.drop:.2f} points on the images "
            f"scored; about {open_.needed:,} such images would show it below {open_.max_drop:g}"
        )
    lines.append(
        f"{counted(len(rows), 'look')} at the same images, each at a seventh of the allowed error; "
        f"{passes_over_images(rows):.1f} passes over the images"
    )
    return lines


def print_budgets(runs: Sequence[Sequence[BudgetRow]], console: "Console | None") -> None:
    """Print the networks that were tried, and the claim, of one or more runs."""
    from rich.text import Text

    console = console or make_console()
    for rows in runs:
        show_tables(console, [_table(rows)])
        for line in claim_lines(rows):
            console.print(Text(line), soft_wrap=True)


def budget_markdown(rows: Sequence[BudgetRow]) -> str:
    """The networks that one run tried, and below them the claim."""
    return _table(rows).markdown("; ".join(claim_lines(rows)))


def _table(rows: Sequence[BudgetRow]) -> TextTable:
    lines = [
        {
            "ratio": percent(row.p_prune),
            "images": f"{row.count:,}",
            "lost": str(row.lost),
            "won": str(row.won),
            "drop": f"{row.drop:.2f}",
            "limit": f"{row.drop_high:.2f}",
            "": "passed" if row.passed else "failed",
        }
        for row in rows
    ]
    return TextTable.of(lines, rows[0].model, names=0)


def highest_shown(rows: Sequence[BudgetRow]) -> float:
    """The drop at which a chart of a budget ends: networks far beyond would squeeze the rest."""
    most = max(row.drop_high for row in rows)
    return min(1.1 * max(most, rows[0].max_drop), 4 * rows[0].max_drop)


def budget_figure(rows: Sequence[BudgetRow], title: str | None) -> "Figure":
    """The drop of top-1 of each network that a run tried.

    A bar goes from the drop up to its limit at the confidence of the claim; the drop that was
    allowed is dashed. Drops beyond `highest_shown` are drawn as triangles at the upper edge.
    """
    rows = sorted(rows, key=lambda row: row.p_prune)
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
