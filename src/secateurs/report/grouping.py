"""Group rows of a transfer benchmark that may be compared, and label their lines."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePath

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.names import short_names
from secateurs.report.series import varying_fields
from secateurs.report.transfer_groups import NOISE, PLAIN, BenchmarkRows, Goal, VariantRows
from secateurs.results import TransferRow

# Rows that differ in one of these cannot be compared: they get tables and figures of their own.
_PROTOCOL = (
    *("search_part", "data", "split", "images", "count", "method", "eps", "alpha", "steps"),
    *("targeted_attack", "target_classes", "rounded"),
)
# The other columns in which two lines of one variant may differ.
_SETTINGS = (
    *("recipe", "p_prune", "p_bern", "granularity", "scope", "score", "prune_type", "redraw"),
    *("layers", "include", "exclude", "passes", "batch_size", "img_size", "surrogates_weights"),
)
_TEXT: dict[str, Callable[[str], str]] = {
    "p_prune": lambda value: f"p_prune {value}",
    "p_bern": lambda value: f"p_bern {value}",
    "prune_type": lambda value: f"{value} pruning",
    "redraw": lambda value: counted(int(value), "draw") if value.isdigit() else f"a draw a {value}",
    "scope": lambda value: "per layer" if value == "layer" else value,
    "include": lambda value: f"include {value}",
    "exclude": lambda value: f"exclude {value}",
    "passes": lambda value: "1 pass" if value == "1" else f"{value} passes",
    "batch_size": lambda value: f"batch {value}",
    "img_size": lambda value: f"{value} px",
    "surrogates_weights": lambda value: f"weights {value[:8]}",
}


def split_benchmarks(rows: Sequence[TransferRow]) -> list[BenchmarkRows]:
    """Group rows by protocol and images, in the order of their first rows.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    if not rows:
        raise InvalidArgumentError("there are no rows to show; run a transfer first")
    parts: dict[tuple[object, ...], list[TransferRow]] = {}
    for row in (row.printable() for row in rows):
        parts.setdefault(tuple(getattr(row, name) for name in _PROTOCOL), []).append(row)
    return [_benchmark(part) for part in parts.values()]


def shown_benchmarks(
    rows: Sequence[TransferRow], stem: str | os.PathLike[str], outcome: Goal | None
) -> list[tuple[Path, BenchmarkRows, Goal]]:
    """The path, the rows of one protocol, and the outcome of each figure to draw.

    Rows of a search are left out if there are others.

    Raises:
        InvalidArgumentError: There are no rows, or none with that outcome.
    """
    every = split_benchmarks(rows)
    found = [one for one in every if one.rows[0].search_part != "search"] or every
    chosen = [one for one in found if outcome is None or outcome in one.outcomes]
    if not chosen:
        raise InvalidArgumentError(
            f"outcome is {outcome!r}, which these rows lack; give {found[0].outcomes[0]!r}"
        )
    path = Path(stem)
    return [
        (
            path.with_name(f"{path.name}-{number}") if number > 1 else path,
            one,
            outcome or one.outcomes[0],
        )
        for number, one in enumerate(chosen, start=1)
    ]


def describe_benchmark(benchmark: BenchmarkRows) -> str:
    """The images, the attack and the seeds of all rows, in one line."""
    row = benchmark.rows[0]
    split = f" ({row.split})" if row.split else ""
    seeds = len({one.seed for one in benchmark.rows})
    classes = f", target classes {row.target_classes}" if row.target_classes else ""
    passes = {one.passes for one in benchmark.rows if one.variant != NOISE}
    averaged = f", {max(passes)} passes a step" if len(passes) == 1 and passes != {1} else ""
    return "; ".join(
        [
            f"{counted(row.count, 'image')} of {PurePath(row.data).name}{split} that all "
            f"networks classify correctly, of {row.candidates_count:,} looked at{classes}",
            f"{row.method}, eps {grey_levels(row.eps)}, alpha {grey_levels(row.alpha)}{averaged},"
            f" step {benchmark.steps[-1]} of {row.steps}, {seeds} seed{'s' * (seeds > 1)}",
        ]
    )


def part_title(benchmark: BenchmarkRows) -> str:
    """The name of these images in a search, or ""."""
    return {
        "search": "part that settings are chosen on",
        "report": "part kept for the outcome",
    }.get(benchmark.rows[0].search_part, "")


def grey_levels(value: float) -> str:
    """A distance of pixels in [0, 1] as a fraction of 255, if it is one."""
    nearest = Fraction(value * 255).limit_denominator(4)
    return f"{nearest}/255" if abs(nearest / 255 - value) < 1e-6 and nearest > 0 else f"{value:g}"


def _benchmark(rows: Sequence[TransferRow]) -> BenchmarkRows:
    rows = _with_distinct_names(rows)
    kinds = [row for row in rows if row.variant != NOISE] or list(rows)
    varying = varying_fields(kinds, ("surrogates", "variant", *_SETTINGS))
    extra = [name for name in varying if name not in ("surrogates", "variant")]
    if len({row.passes for row in kinds}) > 1 and "passes" not in extra:
        extra.append("passes")  # always, since a step then has other costs
    groups: dict[tuple[str, str, str], list[TransferRow]] = {}
    for row in rows:
        settings = [_setting(row, name) for name in extra if row.variant != NOISE]
        label = ", ".join(filter(None, [row.variant, *settings]))
        groups.setdefault((row.surrogates, row.variant, label), []).append(row)
    lines = [_line(names, variant, label, part) for (names, variant, label), part in groups.items()]
    networks = [name for row in rows for name in (row.target, *row.surrogates.split(";")) if name]
    return BenchmarkRows(
        rows=tuple(rows),
        lines=tuple(_ordered([*lines, *_together(lines)])),
        targets=tuple(dict.fromkeys(row.target for row in rows)),
        short=short_names(networks),
    )


def _with_distinct_names(rows: Sequence[TransferRow]) -> list[TransferRow]:
    """The rows, with targets of one name but different weights or dtypes renamed."""
    kinds: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        kinds.setdefault(row.target, set()).add((row.target_sha256, row.dtype))
    named: list[TransferRow] = []
    for row in rows:
        weights, dtypes = (len(set(one)) > 1 for one in zip(*kinds[row.target], strict=True))
        marks = [row.target_sha256[:8]] * weights + [row.dtype] * dtypes
        suffix = f" ({', '.join(marks)})" if marks else ""
        named.append(replace(row, target=row.target + suffix))
    return named


def _setting(row: TransferRow, name: str) -> str:
    value = str(getattr(row, name))
    return _TEXT[name](value) if value and name in _TEXT else value


def _line(
    surrogates: str | None, variant: str, label: str, rows: Iterable[TransferRow]
) -> VariantRows:
    # Of two rows of one pair, seed and step, the later one counts.
    found = {(row.surrogates, row.target, row.seed, row.step): row for row in rows}
    return VariantRows(surrogates, variant, label, next(iter(found.values())).passes, found)


def _together(lines: Sequence[VariantRows]) -> list[VariantRows]:
    """A line over all groups of surrogates for each variant that every group has."""
    groups = {line.surrogates for line in lines if line.surrogates}
    if len(groups) < 2:
        return []
    labels = dict.fromkeys(line.label for line in lines if line.surrogates)
    same = {label: [line for line in lines if line.label == label] for label in labels}
    return [
        _line(None, found[0].variant, label, [row for line in found for row in line.rows.values()])
        for label, found in same.items()
        if {line.surrogates for line in found} == groups
    ]


def _ordered(lines: Sequence[VariantRows]) -> list[VariantRows]:
    """Sort by group, plain first in each; then the lines over all groups, then noise."""
    groups = list(dict.fromkeys(line.surrogates for line in lines if line.surrogates))
    order: dict[str | None, int] = {name: i for i, name in enumerate(groups)}
    order |= {None: len(groups), "": len(groups) + 1}
    rank = {PLAIN: 0, NOISE: 2}
    return sorted(lines, key=lambda line: (order[line.surrogates], rank.get(line.variant, 1)))
