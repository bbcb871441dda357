"""Tables of a transfer benchmark, for a terminal and in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from secateurs.errors import require
from secateurs.report.grouping import describe_benchmark, part_title, split_benchmarks
from secateurs.report.names import break_name
from secateurs.report.table import empty_table, fitting_tables, markdown_lines
from secateurs.report.transfer_groups import NOISE, PLAIN, WHITE, BenchmarkRows, Goal, VariantRows
from secateurs.results import TransferRow
from secateurs.results.compare import Comparison, Estimate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_TITLES: dict[Goal, str] = {"targeted": "Targeted success", "untargeted": "Untargeted success"}
_HEAD, _LABEL = 14, 24  # letters in a line of a column's head, and of a variant


def transfer_table_markdown(rows: Sequence[TransferRow]) -> str:
    """The success of a transfer benchmark in percent as Markdown tables.

    One table for targeted and one for untargeted success: a row for each group of surrogates and
    each variant, and if there are several groups one for each variant over all of them; a column
    for each target, the mean over the hold-outs, its difference to "plain" and p. Rows of other
    images or another protocol get tables of their own.

    Args:
        rows: The rows, in any order; several seeds are averaged.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    blocks: list[str] = []
    for benchmark in split_benchmarks(rows):
        for outcome in benchmark.outcomes:
            blocks.append(f"**{_title(benchmark, outcome)}**")
            blocks.append(markdown_lines(_markdown(benchmark, outcome)))
        blocks.append(_sentence(_notes(benchmark)))
    return "\n\n".join(blocks) + "\n"


def print_transfer_table(rows: Sequence[TransferRow], console: "Console | None" = None) -> None:
    """Print the success of a transfer benchmark in percent.

    The tables of `transfer_table_markdown`, with the interval below each number; in a narrow
    terminal, the columns are split over several tables.

    Args:
        rows: The rows, in any order; several seeds are averaged.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    require("rich", "a table in a terminal")
    from rich.text import Text

    from secateurs._console import make_console, print_whole

    console = console or make_console()
    for benchmark in split_benchmarks(rows):
        for outcome in benchmark.outcomes:
            columns = _columns(benchmark, outcome)
            for table in fitting_tables(partial(_table, benchmark), columns, console):
                # Not as the table's own title, which would be wrapped to the table's width.
                console.print(Text(_title(benchmark, outcome), style="bold"))
                print_whole(console, table)
        console.print(Text(_notes(benchmark), style="dim"))


def p_text(p: float) -> str:
    """A p value with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _title(benchmark: BenchmarkRows, outcome: Goal) -> str:
    part = part_title(benchmark)
    names = [benchmark.surrogates_text(group) for group in benchmark.groups]
    by = f", surrogates {names[0]}" if len(names) == 1 else ""
    return f"{_TITLES[outcome]} in percent{by}{f' ({part})' if part else ''}"


def _notes(benchmark: BenchmarkRows) -> str:
    lines = benchmark.lines
    parts = [describe_benchmark(benchmark), "95% intervals over images, seeds averaged in an image"]
    if any(row.role == WHITE for row in benchmark.rows):
        parts.append(
            "in parentheses: white-box, the dense surrogate itself, not in means of hold-outs"
        )
    if any(benchmark.baseline(line) for line in lines):
        tests = "exact sign-flip test over images"
        family = max(
            sum(line.variant not in (PLAIN, NOISE) and line.surrogates == group for line in lines)
            for group in {line.surrogates for line in lines}
        )
        holm = f", corrected (Holm) for {family} variants" if family > 1 else ""
        parts.append(f"vs plain: in points over the {benchmark.measured}, same images and seeds")
        parts.append(f"p: {tests}{holm}")
    return "; ".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _has_mean(benchmark: BenchmarkRows) -> bool:
    """Whether there are several hold-outs, so that their mean is worth a column."""
    return len({target for _, target in benchmark.holdouts}) > 1


def _interval(one: Estimate) -> str:
    return f"{one.low:.1f} to {one.high:.1f}"


def _signed(one: Comparison) -> str:
    return f"{one.low:+.1f} to {one.high:+.1f}"


def _markdown(benchmark: BenchmarkRows, outcome: Goal) -> list[list[str]]:
    several, mean = len(benchmark.groups) > 1, _has_mean(benchmark)
    compared = benchmark.comparisons(outcome)
    heads = ["surrogates"] * several + ["variant"]
    numbers = [benchmark.short[target] for target in benchmark.targets]
    numbers += [benchmark.measured] * mean + ["vs plain", "p"] * bool(compared)
    lines = [heads + numbers, ["---"] * len(heads) + ["---:"] * len(numbers)]
    for number, line in enumerate(benchmark.lines):
        cells = [benchmark.surrogates_text(line.surrogates)] * several + [line.label]
        for target in benchmark.targets:
            found = benchmark.cell(line, target, outcome)
            text = f"{found[0].value:.1f} [{_interval(found[0])}]" if found else ""
            cells.append(f"({text})" if found and found[1] == WHITE else text)
        if mean:
            one = benchmark.mean(line, outcome)
            cells.append(f"**{one.value:.1f}** [{_interval(one)}]" if one else "")
        if number in compared:
            versus, p = compared[number]
            cells += [f"{versus.difference:+.1f} [{_signed(versus)}]", p_text(p)]
        elif compared:
            cells += ["", ""]
        lines.append(cells)
    return lines


@dataclass(frozen=True)
class _Column:
    """A column of a table in a terminal: its head, and a cell for each of the benchmark's lines."""

    head: str
    cells: list["Text"]


def _columns(benchmark: BenchmarkRows, outcome: Goal) -> list[_Column]:
    """The mean and the comparison with plain, then a column for each target."""
    lines, compared = benchmark.lines, benchmark.comparisons(outcome)
    columns: list[_Column] = []
    if _has_mean(benchmark):
        means = [benchmark.mean(line, outcome) for line in lines]
        columns.append(_Column(benchmark.measured, [_estimate(one, style="bold") for one in means]))
    if compared:
        pairs = [compared.get(number) for number in range(len(lines))]
        columns.append(_Column("vs plain", [_versus(pair) for pair in pairs]))
        columns.append(_Column("p", [_text(p_text(pair[1]) if pair else "") for pair in pairs]))
    for target in benchmark.targets:
        head = "\n".join(break_name(benchmark.short[target], _HEAD))
        found = [benchmark.cell(line, target, outcome) for line in lines]
        cells = [_estimate(cell[0], white=cell[1] == WHITE) if cell else _text() for cell in found]
        columns.append(_Column(head, cells))
    return columns


def _table(benchmark: BenchmarkRows, columns: Sequence[_Column]) -> "Table":
    table = empty_table()
    heads = ["variant", *(column.head for column in columns)]
    deepest = max(head.count("\n") for head in heads)
    for number, head in enumerate(heads):
        low = "\n" * (deepest - head.count("\n")) + head
        table.add_column(_text(low), justify="right" if number else "left", no_wrap=True)
    group: str | None = ""
    for number, line in enumerate(benchmark.lines):
        if len(benchmark.groups) > 1 and line.surrogates != group:
            table.add_section()
            table.add_row(_heading(benchmark, line))
        group = line.surrogates
        name = _text("\n".join(break_name(line.label, _LABEL)))
        table.add_row(name, *(column.cells[number] for column in columns))
    return table


def _heading(benchmark: BenchmarkRows, line: VariantRows) -> "Text":
    from rich.text import Text

    name = benchmark.surrogates_text(line.surrogates) or "no surrogate"
    return Text("\n".join(break_name(name, _LABEL)), style="italic")


def _estimate(one: Estimate | None, *, white: bool = False, style: str = "") -> "Text":
    if one is None:
        return _text()
    value = f"({one.value:.1f})" if white else f"{one.value:.1f}"
    return _text(value, _interval(one), style)


def _versus(found: tuple[Comparison, float] | None) -> "Text":
    return _text(f"{found[0].difference:+.1f}", _signed(found[0])) if found else _text()


def _text(first: str = "", below: str = "", style: str = "") -> "Text":
    from rich.text import Text

    return Text.assemble((first, style), (f"\n{below}" if below else "", "dim"))
