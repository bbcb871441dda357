"""The table of a sensitivity run: a row for each layer, a column for each ratio."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.number_text import percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import SensitivityRow

if TYPE_CHECKING:
    from rich.console import Console


def layers_and_ratios(rows: Sequence[SensitivityRow]) -> tuple[list[str], list[float]]:
    """The layers of some rows in their order, and the ratios ascending.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show; run secateurs sensitivity first")
    return list(dict.fromkeys(row.layer for row in rows)), sorted({row.p_prune for row in rows})


def describe_sensitivity(rows: Sequence[SensitivityRow]) -> str:
    """The images, what counts as right, and the images of repairs or of scores, in one line."""
    row = rows[0]
    split = f" ({row.split})" if row.split else ""
    right = f"{row.dense_top1:.1f}% right" if row.labels == "data" else "no labels read"
    data = PurePath(row.data).name or "the loader"
    said = f"{counted(row.count, 'image')} of {data}{split}, dense {right}"
    source = PurePath(row.calibration).name or "the calibration"
    images = f"{counted(row.calibration_count, 'image')} of {source}"
    if row.repair:
        return f"{said}; the layer repaired by {row.repair.replace(';', ', ')} from {images}"
    return f"{said}; {row.score} scores from {images}" if row.calibration_count else said


def print_sensitivity_table(
    rows: Sequence[SensitivityRow], console: "Console | None" = None
) -> None:
    """Print the change of top-1 accuracy, and how many images flipped either way.

    Args:
        rows: The rows of one run.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    rows = [row.printable() for row in rows]
    show_tables(console, [_table(rows)], f"{_MEANING}; {describe_sensitivity(rows)}")


def sensitivity_markdown(rows: Sequence[SensitivityRow]) -> str:
    """The same table in Markdown, and below it what it shows.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    rows = [row.printable() for row in rows]
    return f"{_table(rows).markdown()}\n\n{_MEANING}; {describe_sensitivity(rows)}.\n"


_MEANING = "change of top-1 in points where this layer alone is pruned (images lost / won)"


def _table(rows: Sequence[SensitivityRow]) -> TextTable:
    layers, ratios = layers_and_ratios(rows)
    found = {(row.layer, row.p_prune): row for row in rows}
    sizes = {row.layer: f"{row.targets:,}" for row in rows}
    lines = [
        [layer, sizes[layer], *(_cell(found.get((layer, ratio))) for ratio in ratios)]
        for layer in layers
    ]
    return TextTable(["layer", "weights", *map(percent, ratios)], lines, rows[0].model)


def _cell(row: SensitivityRow | None) -> str:
    return f"{row.change:+.1f} ({row.lost}/{row.won})" if row else ""
