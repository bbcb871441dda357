"""A training that prunes: its curves, dense and pruned accuracy, and what each layer kept."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted, printable
from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import add_axes, new_figure, style_axes
from secateurs.report.names import ranking
from secateurs.report.text_table import TextTable
from secateurs.results import RetrainRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DENSE, _PRUNED = "#555555", "#0072B2"
# In points (1/72 inch).
_WIDTH, _UPPER, _LOWER = 330.0, 150.0, 70.0
_LEFT, _BOTTOM, _GAP, _RIGHT = 42.0, 36.0, 14.0, 78.0


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


def outcome_table(runs: Sequence[Sequence[RetrainRow]]) -> tuple[TextTable, str]:
    """A row for each run, whose rows may be of several seeds; and what the numbers are.

    Raises:
        InvalidArgumentError: A run has no finished seed.
    """
    found = [outcome_of(rows) for rows in runs]
    lines = [
        {
            "model": one.model,
            "weights": f"{one.prunable:,}",
            "kept": f"{round(statistics.fmean(one.kept)):,}",
            "fewer": f"{one.compression:.1f}x",
            "error, dense": with_deviation(one.dense),
            "error, pruned": with_deviation(one.pruned),
        }
        for one in found
    ]
    said = dict.fromkeys(
        f"{counted(one.count, 'image')} ({one.split}), {_of_seeds(one)}" for one in found
    )
    return TextTable.of(lines), f"Error in percent on {'; '.join(said)}."


def _of_seeds(one: RetrainOutcome) -> str:
    return "one seed" if one.seeds == 1 else f"mean and deviation of {one.seeds} seeds"


def with_deviation(values: Sequence[float]) -> str:
    """A mean with the standard deviation of the values, where there are several."""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def layer_table(
    layers: Sequence[tuple[str, int, int]], title: str = "", what: str = "weights"
) -> TextTable:
    """What each layer keeps.

    Args:
        layers: Name, weights that there were, weights that are kept.
        title: A line above it.
        what: What is counted, in place of weights.
    """
    totals = ("all", sum(total for _, total, _ in layers), sum(kept for _, _, kept in layers))
    lines = [
        [printable(name), f"{total:,}", f"{kept:,}", f"{100 * kept / max(total, 1):.2f}"]
        for name, total, kept in (*layers, totals)
    ]
    return TextTable(["layer", what, "kept", "kept %"], lines, title)


def size_table(files: Sequence[tuple[str, int, int]], title: str = "") -> TextTable:
    """What files take on disk.

    Args:
        files: Name, bytes, and bytes when it is compressed.
        title: A line above it.
    """
    lines = [[name, f"{size:,}", f"{compressed:,}"] for name, size, compressed in files]
    return TextTable(["file", "bytes", "compressed"], lines, title)


def describe_retrain(rows: Sequence[RetrainRow]) -> str:
    """What a run pruned, and how, in one line."""
    row = next(row for row in rows if row.phase == "retrain")
    regrowth = "" if row.regrowth == "none" else f", regrowth by {row.regrowth}"
    distilled = f", distilled by {row.distill:g} at {row.temperature:g}" if row.distill else ""
    data = ", tested on ".join(PurePath(one).name for one in row.data.split(";"))
    return (
        f"{data}; {row.schedule}{regrowth}{distilled}; "
        f"{ranking(row.granularity, row.scope, row.score)}; "
        f"{row.optimizer}, rate {row.learning_rate:g}; {counted(row.count, 'image')} for validation"
    )


def retrain_figure(rows: Sequence[RetrainRow], title: str | None) -> "Figure":
    """The validation accuracy of each epoch of a run, and below it how many weights were pruned.

    Several seeds are drawn as thin lines. The epochs before any pruning are grey; the best accuracy
    among them is dashed.

    Raises:
        InvalidArgumentError: There is no epoch of retraining among the rows.
    """
    if not any(row.phase == "retrain" for row in rows):
        raise InvalidArgumentError(
            "there is no epoch of retraining to draw yet: let the run finish one"
        )
    from matplotlib.ticker import MaxNLocator

    first = next(row for row in rows if row.phase == "retrain")
    low, high = _accuracy_range(rows)
    below = [row.top1 for row in rows if row.phase == "retrain" and row.top1 < low]
    cut = f"; lowest while pruned {min(below):.1f}, below the axis" if below else ""
    title = title or f"{first.model}, {100 * first.p_prune:.4g}% pruned"
    width, height = _LEFT + _WIDTH + _RIGHT, _BOTTOM + _LOWER + _GAP + _UPPER
    figure = new_figure(width, height, title, describe_retrain(rows) + cut)
    lower = add_axes(figure, _LEFT, _BOTTOM, _WIDTH, _LOWER)
    upper = add_axes(figure, _LEFT, _BOTTOM + _LOWER + _GAP, _WIDTH, _UPPER)
    seeds = sorted({row.seed for row in rows})
    for seed in seeds:
        own = [row for row in rows if row.seed == seed and row.split == "validation"]
        dense = [row for row in own if row.phase == "dense"]
        pruned = [row for row in own if row.phase == "retrain"]
        for part, colour, offset in ((dense, _DENSE, 0), (pruned, _PRUNED, len(dense))):
            along = [offset + row.epoch for row in part]
            options: dict[str, Any] = {
                "color": colour,
                "linewidth": 1.4 if len(seeds) == 1 else 0.9,
                "marker": "o" if len(part) == 1 else "",  # one epoch makes no line
                "markersize": 3.5,
                "clip_on": len(part) != 1,
            }
            upper.plot(along, [row.top1 for row in part], **options)
            lower.plot(along, [100 * row.achieved for row in part], **options)
    dense_best = [row.top1 for row in rows if row.phase == "dense"]
    if dense_best:
        upper.axhline(max(dense_best), color=_DENSE, linewidth=0.8, dashes=(5, 3), zorder=1.5)
        upper.annotate(
            f"dense {max(dense_best):.2f}", (1, max(dense_best)), (4, 0), color=_DENSE,
            xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        )  # fmt: skip
    upper.set_ylim(low, high + (high - low) / 100)  # a line at 100 is drawn whole
    upper.locator_params(axis="y", integer=True)  # "97.5" does not fit into the margin
    upper.set_ylabel("Validation top-1 (%)")
    lower.set_ylim(0, 100)
    lower.set_ylabel("Pruned (%)")
    lower.set_xlabel("Epoch")
    upper.tick_params(labelbottom=False)
    for axes in (upper, lower):
        style_axes(axes)
        axes.set_xlim(0, max(axes.dataLim.x1, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    return figure


def _accuracy_range(rows: Sequence[RetrainRow]) -> tuple[int, int]:
    """Where the axis of accuracy begins and ends: multiples of 5 around nine tenths of the epochs.

    The lowest tenth, such as the first epoch of an untrained network, would squeeze the rest.
    """
    every = sorted(row.top1 for row in rows if row.split == "validation")
    low = 5 * max(math.ceil(every[len(every) // 10] / 5) - 1, 0)
    return low, min(100, 5 * (math.floor(every[-1] / 5) + 1))
