"""Tables of a transfer benchmark, for a terminal and in Markdown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from secateurs.report.grouping import describe_benchmark, part_title, split_benchmarks
from secateurs.report.names import break_name
from secateurs.report.number_text import interval_text, p_text
from secateurs.report.text_table import TextTable, show_tables
from secateurs.report.transfer_groups import NOISE, PLAIN, WHITE, BenchmarkRows, Goal
from secateurs.results import TransferRow
from secateurs.results.compare import Comparison, Estimate

if TYPE_CHECKING:
    from rich.console import Console

_TITLES: dict[Goal, str] = {"targeted": "Targeted success", "untargeted": "Untargeted success"}
_HEAD, _LABEL = 14, 24  # letters in a line of a column's head, and of a variant
_VARIANTS = {
    PLAIN: "plain: the surrogates as they are, not pruned",
    "dwp": "dwp R P: the least important weights of the surrogates, a ratio R of all, are "
    "candidates, and each is pruned with probability P, drawn anew during the attack",
    "rapa": "rapa P: each parameter of the surrogates' normalisation and fully connected layers is "
    "pruned with probability P, drawn anew during the attack",
    "mup": "mup R: in each layer of the surrogates a ratio R of the weights is pruned, those that "
    "matter least for the attacked images, chosen anew during the attack",
    NOISE: "noise: each pixel changed by eps, up or down at random, without any network",
}
"""What the first word of a variant's name means."""


def transfer_markdown(rows: Sequence[TransferRow]) -> str:
    """The success of a transfer benchmark in percent as Markdown tables.

    One table for targeted and one for untargeted success: a row for each group of surrogates and
    each variant, and if there are several groups one for each variant over all of them; a column
    for each target, the mean over the hold-outs, its difference to "plain" and p. Several seeds are
    averaged. Rows of other images or another protocol get tables of their own.
    """
    blocks: list[str] = []
    for benchmark in split_benchmarks(rows):
        for outcome in benchmark.outcomes:
            blocks.append(f"**{_title(benchmark, outcome)}**")
            blocks.append(_table(benchmark, outcome, markdown=True).markdown())
        blocks.append(_sentence("; ".join(_notes(benchmark))))
    return "\n\n".join(blocks) + "\n"


def print_transfer(rows: Sequence[TransferRow], console: "Console | None") -> None:
    """Print the tables of `transfer_markdown`, with the interval below each number."""
    for benchmark in split_benchmarks(rows):
        tables = [_table(benchmark, outcome, markdown=False) for outcome in benchmark.outcomes]
        show_tables(console, tables, *_notes(benchmark))


def _title(benchmark: BenchmarkRows, outcome: Goal) -> str:
    part = part_title(benchmark)
    names = [benchmark.surrogates_text(group) for group in benchmark.groups]
    by = f", surrogates {names[0]}" if len(names) == 1 else ""
    return f"{_TITLES[outcome]} in percent{by}{f' ({part})' if part else ''}"


def _notes(benchmark: BenchmarkRows) -> list[str]:
    """What was measured and how, and a line for each name in the table that needs one."""
    measurement, mean = _measurement(benchmark), _has_mean(benchmark)
    notes = [measurement]
    if "hold-outs" in f"{measurement} {benchmark.measured * mean}":
        in_column = ", in the column their mean" * mean
        notes.append(f"hold-outs: networks that the attack did not use{in_column}")
    shown = {line.variant.partition(" ")[0] for line in benchmark.lines}
    return notes + [text for name, text in _VARIANTS.items() if name in shown]


def _measurement(benchmark: BenchmarkRows) -> str:
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


def _table(benchmark: BenchmarkRows, outcome: Goal, *, markdown: bool) -> TextTable:
    """A row for each line; in a terminal the mean comes before the targets."""
    groups, mean = _groups(benchmark), _has_mean(benchmark)
    compared = benchmark.comparisons(outcome)
    named = [*(["surrogates"] if markdown and groups else []), "variant"]
    targets = [benchmark.short[target] for target in benchmark.targets]
    if not markdown:
        targets = ["\n".join(break_name(target, _HEAD)) for target in targets]
    summary = [benchmark.measured] * mean + ["vs plain", "p"] * bool(compared)
    rows: list[list[str]] = []
    for number, line in enumerate(benchmark.lines):
        names = [groups[number]] if markdown and groups else []
        names.append(line.label if markdown else "\n".join(break_name(line.label, _LABEL)))
        found = (benchmark.cell(line, target, outcome) for target in benchmark.targets)
        cells = [_target_cell(one, markdown=markdown) for one in found]
        sums: list[str] = []
        if mean:
            one = benchmark.mean(line, outcome)
            bold = "**" * markdown
            value = f"{bold}{one.value:.1f}{bold}" if one else ""
            sums.append(_with(value, one, markdown=markdown) if one else "")
        if number in compared:
            versus, p = compared[number]
            difference = f"{versus.difference:+.1f}"
            sums += [_with(difference, versus, "{:+.1f}", markdown=markdown), p_text(p)]
        elif compared:
            sums += ["", ""]
        rows.append([*names, *(cells + sums if markdown else sums + cells)])
    heads = [*named, *(targets + summary if markdown else summary + targets)]
    headings = [group or "no surrogate" for group in groups]
    return TextTable(heads, rows, _title(benchmark, outcome), len(named), headings)


def _groups(benchmark: BenchmarkRows) -> list[str]:
    """The surrogates of each line; none where all lines have the same."""
    if len(benchmark.groups) < 2:
        return []
    return [benchmark.surrogates_text(line.surrogates) for line in benchmark.lines]


def _target_cell(found: tuple[Estimate, str] | None, *, markdown: bool) -> str:
    if found is None:
        return ""
    one, white = found[0], found[1] == WHITE
    if white and not markdown:
        return _with(f"({one.value:.1f})", one, markdown=False)
    text = _with(f"{one.value:.1f}", one, markdown=markdown)
    return f"({text})" if white else text


def _with(value: str, ends: Estimate | Comparison, shown: str = "{:.1f}", *, markdown: bool) -> str:
    """A number with its interval: in Markdown beside it, in a terminal below it."""
    interval = interval_text(ends.low, ends.high, shown)
    return f"{value} [{interval}]" if markdown else f"{value}\n{interval}"
