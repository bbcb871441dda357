"""The table of a measurement of speed: images a second against the ratio of zeros."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from secateurs._io.text import counted, printable
from secateurs.errors import InvalidArgumentError
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import SpeedRow
from secateurs.results.speed_row import break_even

if TYPE_CHECKING:
    from rich.console import Console

Setting = tuple[str, int, int]
"""Model, batch size, threads."""


def settings_of(rows: Sequence[SpeedRow]) -> Mapping[Setting, list[SpeedRow]]:
    """The rows of each model, batch size and number of threads, by ascending ratio.

    Raises:
        InvalidArgumentError: there are no rows.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show; run secateurs speed first")
    found: dict[Setting, list[SpeedRow]] = {}
    for row in sorted(rows, key=lambda row: row.achieved):
        found.setdefault((row.model, row.batch_size, row.threads), []).append(row)
    return dict(sorted(found.items()))


def print_speed_table(rows: Sequence[SpeedRow], console: "Console | None" = None) -> None:
    """Print images a second, dense and accelerated, a table for each model.

    Args:
        rows: The rows, in any order.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    every = settings_of(rows)
    tables: list[TextTable] = []
    for model in dict.fromkeys(model for model, _, _ in every):
        own = {key: found for key, found in every.items() if key[0] == model}
        rates = sorted(row.achieved for found in own.values() for row in found)
        columns = [{_percent(row.achieved): _cell(row) for row in found} for found in own.values()]
        heads = [
            "zeros",
            *(f"batch {batch}, {counted(threads, 'thread')}" for _, batch, threads in own),
        ]
        lines = [
            [ratio, *(column.get(ratio, "") for column in columns)]
            for ratio in dict.fromkeys(map(_percent, rates))
        ]
        tables.append(TextTable(heads, lines, printable(model), names=0))
    meaning = "images a second: dense > accelerated, times as fast"
    show_tables(console, tables, meaning, *break_even_lines(rows))


def speed_table_markdown(rows: Sequence[SpeedRow]) -> str:
    """The same as a Markdown table with a row for each measurement."""
    heads = ["model", "batch", "threads", "zeros", "dense, images/s", "accelerated", "gain"]
    lines: list[list[str]] = []
    for (model, batch, threads), own in settings_of(rows).items():
        for row in own:
            rates = [rate_text(row.dense_rate), rate_text(row.rate), f"{row.speedup:.2f}x"]
            which = f"{row.replaced} of {row.found}"
            lines.append([model, str(batch), str(threads), _percent(row.achieved), *rates, which])
    said = "; ".join(dict.fromkeys(f"{row.processor}, {row.dtype}" for row in rows))
    table = TextTable([*heads, "layers"], lines)
    return f"{table.markdown()}\n\n{' '.join(break_even_lines(rows))} {said}.\n"


def break_even_lines(rows: Sequence[SpeedRow]) -> list[str]:
    """A sentence for each model, batch size and number of threads: from where on it pays."""
    lines: list[str] = []
    for (model, batch, threads), own in settings_of(rows).items():
        least = break_even(own)
        pays = (
            "not faster at any ratio" if least is None else f"faster from {_percent(least)} zeros"
        )
        lines.append(f"{model}, batch {batch}, {counted(threads, 'thread')}: {pays}.")
    return lines


def _cell(row: SpeedRow) -> str:
    return f"{rate_text(row.dense_rate)} > {rate_text(row.rate)} {row.speedup:.2f}x"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%"


def rate_text(images: float) -> str:
    """Images a second, with three digits or all before the point."""
    return f"{images:,.0f}" if images >= 100 else f"{images:.3g}"
