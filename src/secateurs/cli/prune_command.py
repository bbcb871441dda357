"""``secateurs prune``: prune checkpoints of any size, without building a model."""

from pathlib import Path

from secateurs._console import say
from secateurs._io.text import printable
from secateurs._progress import bytes_text, progress_bar
from secateurs.checkpoint import (
    Decision,
    PruningPlan,
    Summary,
    decide_pruning,
    decompress_checkpoint,
    plan_pruning,
    write_pruned,
)
from secateurs.checkpoint.destination import find_destination
from secateurs.checkpoint.pruning_plan import coverage_of_plan
from secateurs.cli.coverage_text import coverage_line
from secateurs.cli.option_types import given
from secateurs.cli.prune_options import FilePruning
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.repair import read_ratios
from secateurs.report.text_table import TextTable, show_tables
from secateurs.selection.scopes import NOfM

_NAMED = 6  # names in a message


def plan_only(source: Path, asked: FilePruning) -> None:
    """Print which tensors would be pruned, and the threshold."""
    plan = _planned(source, asked)
    with progress_bar("reading", plan.work, unit="bytes") as bar:
        decision = decide_pruning(plan, bar.advance)
    with Stdout() as stdout:
        notes = (_what_stays(plan, asked), *_thresholds(plan, decision), *plan.notes)
        stdout.table(lambda console: show_tables(console, [_plan_table(plan)]))
        stdout.write("".join(f"{note}\n" for note in notes if note))


def prune_file(
    source: Path, given_output: Path | None, asked: FilePruning, *, compress: bool
) -> None:
    """Prune a file or folder, and print what was pruned and written."""
    plan = _planned(source, asked)
    stays = _what_stays(plan, asked)
    output = _needed(given_output)
    find_destination(plan.source, output, compress=compress)
    for line in (_outline(plan), *plan.notes):
        say(line)
    with progress_bar("pruning", plan.work, unit="bytes") as bar:
        decision = decide_pruning(plan, bar.advance)
        summary = write_pruned(plan, decision, output, compress=compress, advance=bar.advance)
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: show_tables(console, [_summary_table(summary)]))
        stdout.write(f"{stays}\n" if stays else "")
        for line in (*_thresholds(plan, decision), *_others(plan, summary)):
            say(line)
        files = _first(list(summary.names))
        say(f"wrote {files} ({bytes_text(summary.size)}) to {summary.folder}")


def _planned(source: Path, asked: FilePruning) -> PruningPlan:
    options = dict(given(asked, "ratios_from"))
    if asked.ratios_from is not None:
        options["ratios"] = read_ratios(asked.ratios_from)
    return plan_pruning(source, **options)


def decompress(source: Path, given_output: Path | None) -> None:
    """Decompress the files that ``--compress`` wrote."""
    output = _needed(given_output)
    with progress_bar("decompressing", None, unit="bytes") as bar:
        folder = decompress_checkpoint(source, output, advance=bar.advance)
    say(f"wrote {output.name or folder.resolve().name} to {folder}")


def _needed(output: Path | None) -> Path:
    if output is None:
        raise InvalidArgumentError("--output is missing: write -o PATH (it may be the input)")
    return output


def _what_stays(plan: PruningPlan, asked: FilePruning) -> str:
    """A line on the weights that do not compete."""
    found = coverage_of_plan(plan)
    return coverage_line(found, include=asked.include)


def _others(plan: PruningPlan, summary: Summary) -> list[str]:
    """Lines about files that were copied or left out, tied weights, and links."""
    lines: list[str] = []
    left_out = [str(path) for path in plan.source.left_out if (plan.source.path / path).exists()]
    if plan.source.tied:
        tied = _first(list(plan.source.tied))
        lines.append(f"in the index and in no file, so taken for tied to other weights: {tied}")
    if left_out:
        lines.append(f"left out, other weights or the state of a training: {_first(left_out)}")
    if summary.copied:
        lines.append(f"copied along: {_first(list(summary.copied))}")
    if summary.were_links:
        lines.append(
            f"the target of a link has not changed ({_first(list(summary.were_links))}); the "
            "result is a file of its own"
        )
    return lines


def _outline(plan: PruningPlan) -> str:
    """The tensors that will be pruned, in a line."""
    count = len(plan.weights) + len(plan.untouched)
    elements = sum(weight.entry.count for weight in plan.weights)
    size = sum(weight.entry.nbytes for weight in plan.weights)
    by_size = sorted(plan.untouched, key=lambda entry: -entry.count)
    others = _first([entry.name for entry in by_size])
    rest = f"; the others stay: {others}" if others else ""
    return (
        f"pruning {len(plan.weights):,} of {count:,} tensors ({elements:,} weights, "
        f"{bytes_text(size)}){rest}"
    )


def _plan_table(plan: PruningPlan) -> TextTable:
    """All tensors, and whether each competes."""
    chosen = {weight.entry.name for weight in plan.weights}
    rows = [
        (
            printable(entry.name),
            entry.dtype,
            _shape(entry.shape),
            f"{entry.count:,}",
            "prune" * (entry.name in chosen),
        )
        for file in plan.source.files
        for entry in file.entries
    ]
    return TextTable(("tensor", "dtype", "shape", "elements", ""), rows)


def _summary_table(summary: Summary) -> TextTable:
    rows: list[tuple[str, ...]] = []
    for one in summary.weights:
        counts = _counts(one.pruned, one.total)
        rows.append((printable(one.name), one.dtype, _shape(one.shape), *counts))
    pruned, total = (sum(getattr(w, a) for w in summary.weights) for a in ("pruned", "total"))
    rows.append(("total", "", "", *_counts(pruned, total)))
    return TextTable(("tensor", "dtype", "shape", "pruned", "of", "ratio"), rows)


def _counts(pruned: int, total: int) -> tuple[str, str, str]:
    return f"{pruned:,}", f"{total:,}", f"{pruned / total:.2%}"


def _thresholds(plan: PruningPlan, decision: Decision) -> list[str]:
    """The largest score of a candidate; one for each tensor if the scope is ``layer``."""
    scope = NOfM.read(plan.options.scope)
    if scope is not None:
        units = sum(weight.units for weight in plan.weights)
        return [f"{scope.kept} of every {scope.of} inputs are kept: candidates are "
                f"{round(plan.p_prune * units):,} of {units:,} units"]  # fmt: skip
    lines: list[str] = []
    for group in decision.groups:
        units = sum(weight.units for weight in group.weights)
        alone = plan.by_layer
        what = printable(group.weights[0].entry.name) if alone else "threshold"
        end = "no candidates" if group.score is None else f"{group.score:.9g}"
        lines.append(
            f"{what}: {end} ({round(plan.ratio_of(group.weights) * units):,} of {units:,} units)"
        )
    return lines


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _first(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(printable, names[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")
