"""The table of a budget: every network that was tried, and what is claimed of the sparsest."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from secateurs._console import make_console
from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.names import ranking
from secateurs.report.number_text import percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import BudgetRow

if TYPE_CHECKING:
    from rich.console import Console


def chosen_row(rows: Sequence[BudgetRow]) -> BudgetRow | None:
    """The sparsest network that passed; None if none did.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show; run secateurs budget first")
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
    """What is claimed, in one sentence.

    Raises:
        InvalidArgumentError: There are no rows.
    """
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
    """What is claimed, what a sparser network would need, and how much was scored.

    Raises:
        InvalidArgumentError: There are no rows.
    """
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
            f"{percent(open_.p_prune)} dropped by less in what was scored; if it does so on "
            f"others, about {open_.needed:,} images show it"
        )
    lines.append(
        f"{counted(len(rows), 'look')} at the same images, each at a seventh of the allowed error; "
        f"{passes_over_images(rows):.1f} passes over the images"
    )
    return lines


def print_budget_table(
    runs: Sequence[Sequence[BudgetRow]], console: "Console | None" = None
) -> None:
    """Print the networks that were tried, and the claim, of one or more budgets.

    Args:
        runs: The rows of each run.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: A run has no rows.
    """
    from rich.text import Text

    console = console or make_console()
    for rows in runs:
        safe = [row.printable() for row in rows]
        show_tables(console, [_table(safe)])
        for line in claim_lines(safe):
            console.print(Text(line), soft_wrap=True)


def budget_markdown(runs: Sequence[Sequence[BudgetRow]]) -> str:
    """The same tables in Markdown, each with its claim below.

    Raises:
        InvalidArgumentError: A run has no rows.
    """
    return "\n".join(
        f"{_table(rows).markdown()}\n\n{'; '.join(claim_lines(rows))}.\n"
        for rows in ([row.printable() for row in run] for run in runs)
    )


def _table(rows: Sequence[BudgetRow]) -> TextTable:
    chosen_row(rows)
    lines = [
        [
            *(percent(row.p_prune), f"{row.count:,}", str(row.lost), str(row.won)),
            *(f"{row.drop:.2f}", f"{row.drop_high:.2f}", "passed" if row.passed else "failed"),
        ]
        for row in rows
    ]
    heads = ["ratio", "images", "lost", "won", "drop", "limit", ""]
    return TextTable(heads, lines, rows[0].model, names=0)
