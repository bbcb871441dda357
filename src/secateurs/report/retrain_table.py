"""The outcome of a training that prunes: dense and pruned accuracy, and what each layer kept."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from secateurs.errors import InvalidArgumentError
from secateurs.report.table import markdown_lines
from secateurs.results import RetrainRow


@dataclass(frozen=True)
class Outcome:
    """What a run came to on the images that chose nothing; several seeds as mean and deviation.

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


def outcome_of(rows: Sequence[RetrainRow]) -> Outcome:
    """The outcome of the seeds that are finished.

    Raises:
        InvalidArgumentError: No seed is.
    """
    dense = {row.seed: row for row in rows if row.phase == "test dense"}
    pruned = {row.seed: row for row in rows if row.phase == "test pruned"}
    seeds = sorted(dense.keys() & pruned.keys())
    if not seeds:
        raise InvalidArgumentError("no seed has been scored on test images yet: let a run finish")
    some = pruned[seeds[0]]
    return Outcome(
        model=some.model,
        split=some.split,
        count=some.count,
        seeds=len(seeds),
        dense=[100 - dense[seed].top1 for seed in seeds],
        pruned=[100 - pruned[seed].top1 for seed in seeds],
        kept=[pruned[seed].kept for seed in seeds],
        prunable=some.prunable,
    )


def retrain_table(rows: Sequence[RetrainRow]) -> str:
    """The outcome as a Markdown table with one line, and a line that says what it is.

    Raises:
        InvalidArgumentError: No seed is finished.
    """
    found = outcome_of(rows)
    head = ["model", "weights", "kept", "fewer", "error, dense", "error, pruned"]
    kept = round(statistics.fmean(found.kept))
    line = [
        found.model, f"{found.prunable:,}", f"{kept:,}", f"{found.compression:.1f}x",
        spread(found.dense), spread(found.pruned),
    ]  # fmt: skip
    table = markdown_lines([head, ["---"] + ["---:"] * 5, line])
    of_seeds = "one seed" if found.seeds == 1 else f"mean and deviation of {found.seeds} seeds"
    return f"{table}\n\nError in percent on {found.count} images ({found.split}), {of_seeds}.\n"


def spread(values: Sequence[float]) -> str:
    """A mean with the standard deviation of the values, where there are several."""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def layer_table(layers: Sequence[tuple[str, int, int]]) -> str:
    """What each layer kept, as a Markdown table.

    Args:
        layers: Name, weights that there were, weights that are kept.
    """
    lines = [["layer", "weights", "kept", "kept %"], ["---", "---:", "---:", "---:"]]
    totals = ("all", sum(total for _, total, _ in layers), sum(kept for _, _, kept in layers))
    for name, total, kept in (*layers, totals):
        lines.append([name, f"{total:,}", f"{kept:,}", f"{100 * kept / max(total, 1):.2f}"])
    return markdown_lines(lines)
