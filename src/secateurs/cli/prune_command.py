"""``secateurs prune``: checkpoints of any size, without building a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateurs._console import say
from secateurs._io.text import printable
from secateurs._progress import bytes_text, progress_bar
from secateurs.cli.coverage_text import coverage_line
from secateurs.cli.options import numbers
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError

if TYPE_CHECKING:
    from secateurs.checkpoint import Decision, Plan, Summary

SEVERAL = frozenset(("--layers", "--include", "--exclude"))
"""Options that take several values."""

_NAMED = 6


def _option(help_text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel)


_PRUNE, _RUN = "How to prune", "What to write"


def prune(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A .safetensors, .pt or .bin file, or a folder as Hugging Face writes it.",
        ),
    ],
    output: Annotated[
        Path | None,
        _option("A file, or a folder if IN is one; it may be IN.", _RUN, "--output", "-o"),
    ] = None,
    p_prune: Annotated[
        str | None, _option("Ratio of units that are candidates, 0 to 1.", _PRUNE)
    ] = None,
    p_bern: Annotated[str, _option("Probability of each candidate.", _PRUNE)] = "1",
    granularity: Annotated[str, _option("weight, kernel or filter.", _PRUNE)] = "weight",
    scope: Annotated[str, _option("global or layer: who competes.", _PRUNE)] = "global",
    score: Annotated[str, _option("magnitude or random.", _PRUNE)] = "magnitude",
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="conv, conv2d, linear, attention, experts, all, ...; by default the weights of "
            "convolutions, linear layers and experts, told by name and shape.",
            rich_help_panel=_PRUNE,
            metavar="VALUE ...",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Prune only these: globs on the names of tensors or of modules around them.",
            rich_help_panel=_PRUNE,
            metavar="VALUE ...",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Do not prune these.", rich_help_panel=_PRUNE, metavar="VALUE ..."),
    ] = None,
    seed: Annotated[
        int | None, _option("For p-bern between 0 and 1 and random scores.", _PRUNE)
    ] = None,
    key: Annotated[
        str | None,
        _option("Where the weights are in a checkpoint of a training that holds several sets: "
                "state_dict_ema, generator, ...", _PRUNE),
    ] = None,
    compress: Annotated[
        bool,
        _option("Write zstd streams, NAME.safetensors.zst, that any zstd tool opens; "
                "secateurs.load_checkpoint and --decompress read them.", _RUN, "--compress"),
    ] = False,
    decompress: Annotated[
        bool, _option("Write what --compress wrote as ordinary files.", _RUN, "--decompress")
    ] = False,
    dry_run: Annotated[
        bool, _option("Print what would be pruned and the threshold; write nothing.", _RUN,
                      "--dry-run")
    ] = False,
) -> None:  # fmt: skip
    """Prune the weights in a file or folder, however large, in two passes over it."""
    from secateurs.checkpoint import decide_pruning, plan_pruning, write_pruned
    from secateurs.checkpoint.destination import find_destination
    from secateurs.checkpoint.file_coverage import coverage_of_plan

    if decompress:
        if p_prune is not None or compress or dry_run:
            raise InvalidArgumentError("--decompress goes with IN and --output alone")
        _decompress(source, _needed(output))
        return
    if p_prune is None:
        raise InvalidArgumentError("--p-prune is missing: write --p-prune 0.5 for half")
    plan = plan_pruning(
        source,
        numbers("--p-prune", [p_prune])[0],
        numbers("--p-bern", [p_bern])[0],
        granularity=granularity,
        scope=scope,
        score=score,
        layers=layers or None,
        include=include or None,
        exclude=exclude or None,
        seed=seed,
        key=key,
    )
    found = coverage_of_plan(plan, include=include or None, exclude=exclude or None)
    stays = coverage_line(found, include=include)
    if dry_run:
        with progress_bar("reading", plan.work, unit="bytes") as bar:
            decision = decide_pruning(plan, bar.advance)
        with Stdout() as stdout:
            stdout.write("\n".join((_plan_table(plan, decision, stays), *plan.notes, "")))
        return
    target = _needed(output)
    find_destination(plan.source, target, compress=compress)
    for line in (_outline(plan), *plan.notes):
        say(line)
    with progress_bar("pruning", plan.work, unit="bytes") as bar:
        decision = decide_pruning(plan, bar.advance)
        summary = write_pruned(plan, decision, target, compress=compress, advance=bar.advance)
    with Stdout(written=True) as stdout:
        stdout.write("\n".join(filter(None, (_summary_table(summary), stays))) + "\n")
        for line in (*_thresholds(plan, decision), *_others(plan, summary)):
            say(line)
        files = _first(list(summary.names))
        say(f"wrote {files} ({bytes_text(summary.size)}) to {summary.folder}")


def _others(plan: "Plan", summary: "Summary") -> list[str]:
    """What went along, and what did not."""
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
            f"what {_first(list(summary.were_links))} led to as links has stayed as it was; the "
            "result is a file of its own"
        )
    return lines


def _needed(output: Path | None) -> Path:
    if output is None:
        raise InvalidArgumentError("--output is missing: write -o PATH (it may be the input)")
    return output


def _decompress(source: Path, output: Path) -> None:
    from secateurs.checkpoint import decompress_checkpoint

    with progress_bar("decompressing", None, unit="bytes") as bar:
        folder = decompress_checkpoint(source, output, advance=bar.advance)
    say(f"wrote {output.name or folder.resolve().name} to {folder}")


def _outline(plan: "Plan") -> str:
    """What will be pruned, in a line."""
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


def _plan_table(plan: "Plan", decision: "Decision", stays: str) -> str:
    """Every tensor, and whether it competes."""
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


def _summary_table(summary: "Summary") -> str:
    rows = [("tensor", "dtype", "shape", "pruned", "of", "ratio")]
    for one in summary.weights:
        ratio = one.pruned / one.total
        numbers_of = f"{one.pruned:,}", f"{one.total:,}", f"{ratio:.2%}"
        rows.append((printable(one.name), one.dtype, _shape(one.shape), *numbers_of))
    pruned, total = (sum(getattr(w, a) for w in summary.weights) for a in ("pruned", "total"))
    rows.append(("total", "", "", f"{pruned:,}", f"{total:,}", f"{pruned / total:.2%}"))
    return _aligned(rows)


def _thresholds(plan: "Plan", decision: "Decision") -> list[str]:
    """Where the candidates end; a line for each tensor where each has its own."""
    lines: list[str] = []
    for group in decision.groups:
        units = sum(weight.units for weight in group.weights)
        what = printable(group.weights[0].entry.name) if plan.scope == "layer" else "threshold"
        end = "no candidates" if group.score is None else f"{group.score:.9g}"
        lines.append(f"{what}: {end} ({round(plan.p_prune * units):,} of {units:,} units)")
    return lines


def _aligned(rows: "list[tuple[str, ...]]") -> str:
    """Columns as wide as what is in them; the first to the left, the others to the right."""
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
