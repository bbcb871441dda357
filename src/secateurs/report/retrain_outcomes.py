"""The outcome of a training that prunes: dense and pruned accuracy, and what each layer kept."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateurs._io.text import counted, printable
from secateurs.errors import InvalidArgumentError
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import RetrainRow

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class RetrainOutcome:
    """The scores of a run on test images, which neither trained it nor chose an epoch.

    Attributes:
        model: What was trained.
        split: The images.
        count: How many they are.
        seeds: How many seeds finished.
        dense: Error of the dense network in percent, one a seed.
        pruned: Error of the pruned network in percent, one a seed.
        kept: Weights that were kept, one a seed.
        prunable: Weights that there are.
    """

    model: str
    split: str
    count: int
    seeds: int
    dense: list[float]
    pruned: list[float]
    kept: list[int]
    prunable: int

    @property
    def compression(self) -> float:
        """How many times fewer weights were kept."""
        mean = statistics.fmean(self.kept)
        return self.prunable / mean if mean else float("inf")


def outcome_of(rows: Sequence[RetrainRow]) -> RetrainOutcome:
    """The outcome of the seeds that are finished.

    Raises:
        InvalidArgumentError: No seed is finished.
    """
    dense = {row.seed: row for row in rows if row.phase == "test dense"}
    pruned = {row.seed: row for row in rows if row.phase == "test pruned"}
    seeds = sorted(dense.keys() & pruned.keys())
    if not seeds:
        raise InvalidArgumentError("no seed has been scored on test images yet: let a run finish")
    some = pruned[seeds[0]]
    return RetrainOutcome(
        model=some.model,
        split=some.split,
        count=some.count,
        seeds=len(seeds),
        dense=[100 - dense[seed].top1 for seed in seeds],
        pruned=[100 - pruned[seed].top1 for seed in seeds],
        kept=[pruned[seed].kept for seed in seeds],
        prunable=some.prunable,
    )


def retrain_table(runs: Sequence[Sequence[RetrainRow]]) -> str:
    """The outcomes as a Markdown table with a line for each run, and a line that says what it is.

    Args:
        runs: The rows of each run; those of a run differ in their seed.

    Raises:
        InvalidArgumentError: A run has no finished seed.
    """
    table, note = outcome_table(runs)
    return f"{table.markdown()}\n\n{note}\n"


def print_retrain_table(
    runs: Sequence[Sequence[RetrainRow]], console: "Console | None" = None
) -> None:
    """Print the outcomes, a line for each run.

    Args:
        runs: The rows of each run; those of a run differ in their seed.
        console: Where to print; a fresh rich console by default.

    Raises:
        InvalidArgumentError: A run has no finished seed.
    """
    table, note = outcome_table(runs)
    show_tables(console, [table], note)


def outcome_table(runs: Sequence[Sequence[RetrainRow]]) -> tuple[TextTable, str]:
    """The table of `retrain_table`, and the line below it."""
    found = [outcome_of(rows) for rows in runs]
    lines: list[list[str]] = []
    for one in found:
        kept = round(statistics.fmean(one.kept))
        counts = [f"{one.prunable:,}", f"{kept:,}", f"{one.compression:.1f}x"]
        lines.append(
            [
                printable(one.model),
                *counts,
                with_deviation(one.dense),
                with_deviation(one.pruned),
            ]
        )
    said = dict.fromkeys(
        f"{counted(one.count, 'image')} ({one.split}), {_of_seeds(one)}" for one in found
    )
    heads = ["model", "weights", "kept", "fewer", "error, dense", "error, pruned"]
    return TextTable(heads, lines), f"Error in percent on {printable('; '.join(said))}."


def _of_seeds(one: RetrainOutcome) -> str:
    return "one seed" if one.seeds == 1 else f"mean and deviation of {one.seeds} seeds"


def with_deviation(values: Sequence[float]) -> str:
    """A mean with the standard deviation of the values, where there are several."""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def layer_table(layers: Sequence[tuple[str, int, int]], title: str = "") -> TextTable:
    """What each layer kept.

    Args:
        layers: Name, weights that there were, weights that are kept.
        title: A line above it.
    """
    totals = ("all", sum(total for _, total, _ in layers), sum(kept for _, _, kept in layers))
    lines = [
        [printable(name), f"{total:,}", f"{kept:,}", f"{100 * kept / max(total, 1):.2f}"]
        for name, total, kept in (*layers, totals)
    ]
    return TextTable(["layer", "weights", "kept", "kept %"], lines, title)


def size_table(files: Sequence[tuple[str, int, int]], title: str = "") -> TextTable:
    """What files take on disk.

    Args:
        files: Name, bytes, and bytes when it is compressed.
        title: A line above it.
    """
    lines = [[name, f"{size:,}", f"{compressed:,}"] for name, size, compressed in files]
    return TextTable(["file", "bytes", "compressed"], lines, title)
