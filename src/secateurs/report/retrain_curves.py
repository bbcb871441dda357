"""Accuracy and sparsity over the epochs of a training that prunes."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import add_axes, new_figure, style_axes, write_figure
from secateurs.report.names import ranking
from secateurs.results import RetrainRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DENSE, _PRUNED = "#555555", "#0072B2"
# In points (1/72 inch).
_WIDTH, _UPPER, _LOWER = 330.0, 150.0, 70.0
_LEFT, _BOTTOM, _GAP, _RIGHT = 42.0, 36.0, 14.0, 78.0


def plot_retrain(
    rows: Sequence[RetrainRow], path_stem: str | os.PathLike[str], *, title: str | None = None
) -> list[Path]:
    """Draw the validation accuracy of each epoch, and below it how many weights were pruned.

    Several seeds are drawn as thin lines. The epochs before any pruning are grey; the best accuracy
    among them is dashed.

    Args:
        rows: Those of one run, or of runs that differ in their seed.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; the model and the data by default.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There is no epoch among the rows.
        FailureError: The files cannot be written.
    """
    return write_figure(lambda: retrain_figure(rows, title), path_stem)


def describe_retrain(rows: Sequence[RetrainRow]) -> str:
    """What a run pruned, and how, in one line."""
    row = next(row for row in rows if row.phase == "retrain")
    regrowth = "" if row.regrowth == "none" else f", regrowth by {row.regrowth}"
    distilled = f", distilled by {row.distill:g} at {row.temperature:g}" if row.distill else ""
    return (
        f"{row.data}; {row.schedule}{regrowth}{distilled}; "
        f"{ranking(row.granularity, row.scope, row.score)}; "
        f"{row.optimizer}, rate {row.learning_rate:g}; {counted(row.count, 'image')} for validation"
    )


def retrain_figure(rows: Sequence[RetrainRow], title: str | None) -> "Figure":
    """The figure that `plot_retrain` writes."""
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
