"""The table of a measurement of speed: images a second against the ratio of zeros."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from secateurs.errors import InvalidArgumentError
from secateurs.report.table import empty_table, fitting_tables, markdown_lines
from secateurs.results import SpeedRow
from secateurs.results.speed_row import break_even

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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
    from rich.text import Text

    from secateurs._console import make_console, print_whole

    every = settings_of(rows)
    console = console or make_console()
    for model in dict.fromkeys(model for model, _, _ in every):
        groups = {key: own for key, own in every.items() if key[0] == model}
        ratios = sorted({_percent(row.achieved) for own in groups.values() for row in own}, key=_of)
        columns = [_column(key, own, ratios) for key, own in groups.items()]
        head = ["zeros", *ratios]

        def table(
            part: Sequence[Sequence[str]], head: list[str] = head, model: str = model
        ) -> "Table":
            made = empty_table(model)
            for title, *_ in (head, *part):
                made.add_column(title, justify="right", no_wrap=True)
            for cells in zip(*(column[1:] for column in (head, *part)), strict=True):
                made.add_row(*cells)
            return made

        for part in fitting_tables(table, columns, console):
            print_whole(console, part)
    console.print(Text("images a second: dense > accelerated, times as fast", style="dim"))
    for line in break_even_lines(rows):
        console.print(Text(line))


def speed_table_markdown(rows: Sequence[SpeedRow]) -> str:
    """The same as a Markdown table with a row for each measurement."""
    head = [
        "model",
        "batch",
        "threads",
        "zeros",
        "dense, images/s",
        "accelerated",
        "gain",
        "layers",
    ]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    for (model, batch, threads), own in settings_of(rows).items():
        for row in own:
            rates = [_rate(row.dense_rate), _rate(row.rate), f"{row.speedup:.2f}x"]
            which = f"{row.replaced} of {row.found}"
            lines.append([model, str(batch), str(threads), _percent(row.achieved), *rates, which])
    said = "; ".join(dict.fromkeys(f"{row.processor}, {row.dtype}" for row in rows))
    return f"{markdown_lines(lines)}\n\n{' '.join(break_even_lines(rows))} {said}.\n"


def break_even_lines(rows: Sequence[SpeedRow]) -> list[str]:
    """A sentence for each model, batch size and number of threads: from where on it pays."""
    lines: list[str] = []
    for (model, batch, threads), own in settings_of(rows).items():
        least = break_even(own)
        pays = (
            "not faster at any ratio" if least is None else f"faster from {_percent(least)} zeros"
        )
        lines.append(f"{model}, batch {batch}, {counted(threads)}: {pays}.")
    return lines


def counted(threads: int) -> str:
    """A number of threads in words."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def _column(key: Setting, own: Sequence[SpeedRow], ratios: Sequence[str]) -> list[str]:
    cells = {
        _percent(r.achieved): f"{_rate(r.dense_rate)} > {_rate(r.rate)} {r.speedup:.2f}x"
        for r in own
    }
    return [f"batch {key[1]}, {counted(key[2])}", *(cells.get(ratio, "") for ratio in ratios)]


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%"


def _of(percent: str) -> float:
    return float(percent[:-1])


def _rate(images: float) -> str:
    return f"{images:,.0f}" if images >= 100 else f"{images:.3g}"
