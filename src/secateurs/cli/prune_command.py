"""``secateurs prune``: prune checkpoints of any size, without building a model."""

from pathlib import Path

from secateurs._console import say
from secateurs._io.text import printable
from secateurs._progress import bytes_text, progress_bar
from secateurs.checkpoint import (
    Decision,
    Plan,
    Summary,
    decide_pruning,
    decompress_checkpoint,
    plan_pruning,
    write_pruned,
)
from secateurs.checkpoint.destination import find_destination
from secateurs.checkpoint.file_coverage import coverage_of_plan
from secateurs.cli.coverage_text import coverage_line
from secateurs.cli.option_types import given
from secateurs.cli.prune_options import FilePruning
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.repair import read_ratios
from secateurs.selection.scopes import NOfM

_NAMED = 6  # names in a message


def plan_only(source: Path, asked: FilePruning) -> None:
    """Print which tensors would be pruned, and the threshold."""
    plan = _planned(source, asked)
    with progress_bar("reading", plan.work, unit="bytes") as bar:
        decision = decide_pruning(plan, bar.advance)
    with Stdout() as stdout:
        table = _plan_table(plan, decision, _what_stays(plan, asked))
        stdout.write("\n".join((table, *plan.notes, "")))


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
        stdout.write("\n".join(filter(None, (_summary_table(summary), stays))) + "\n")
        for line in (*_thresholds(plan, decision), *_others(plan, summary)):
            say(line)
        files = _first(list(summary.names))
        say(f"wrote {files} ({bytes_text(summary.size)}) to {summary.folder}")


def _planned(source: Path, asked: FilePruning) -> Plan:
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


def _what_stays(plan: Plan, asked: FilePruning) -> str:
    """A line on the weights that do not compete."""
    found = coverage_of_plan(plan)
    return coverage_line(found, include=asked.include)


def _others(plan: Plan, summary: Summary) -> list[str]:
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


def _outline(plan: Plan) -> str:
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


def _plan_table(plan: Plan, decision: Decision, stays: str) -> str:
    """A table of all tensors, which says whether each competes."""
    rows = [("tensor", "dtype", "shape", "elements", "")]
    chosen = {weight.entry.name for weight in plan.weights}
    for file in plan.source.files:
        rows += [
            (
                printable(e.name),
                e.dtype,
                _shape(e.shape),
                f"{e.count:,}",
                "prune" * (e.name in chosen),
            )
            for e in file.entries
        ]
    return "\n".join(filter(None, (_aligned(rows), stays, *_thresholds(plan, decision))))


def _summary_table(summary: Summary) -> str:
    rows = [("tensor", "dtype", "shape", "pruned", "of", "ratio")]
    for one in summary.weights:
        ratio = one.pruned / one.total
        numbers_of = f"{one.pruned:,}", f"{one.total:,}", f"{ratio:.2%}"
        rows.append((printable(one.name), one.dtype, _shape(one.shape), *numbers_of))
    pruned, total = (sum(getattr(w, a) for w in summary.weights) for a in ("pruned", "total"))
    rows.append(("total", "", "", f"{pruned:,}", f"{total:,}", f"{pruned / total:.2%}"))
    return _aligned(rows)


def _thresholds(plan: Plan, decision: Decision) -> list[str]:
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


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows as text with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(f"{cell:{'>' if i else '<'}{w}}" for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _first(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(printable, names[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")
