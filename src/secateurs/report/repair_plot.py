"""The figure of a repair: accuracy and agreement with the dense network, stage by stage."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secateurs._io.text import printable
from secateurs.report.figure import add_axes, new_figure, style_axes, wrap, write_figure
from secateurs.report.repair_stages import RepairStage, describe_repair, measures_of, stages_of
from secateurs.results import RepairRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00")
# In points (1/72 inch): the room of a stage, and that around the axes.
_STAGE, _HEIGHT = 92.0, 150.0
_LEFT, _BOTTOM, _RIGHT, _LEGEND = 46.0, 46.0, 16.0, 20.0


def plot_repair(
    rows: Sequence[RepairRow], path_stem: str | os.PathLike[str], *, title: str | None = None
) -> list[Path]:
    """Draw agreement and accuracy after each stage of a repair, as PNG and as SVG.

    Bars show the agreement with the dense network on calibration images, and the accuracy where
    labelled images were scored; the loss is written below the name of each stage.

    Args:
        rows: The rows of one run.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; the model by default.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows.
        FailureError: The files cannot be written.
    """
    return write_figure(lambda: repair_figure(rows, title), path_stem)


def repair_figure(rows: Sequence[RepairRow], title: str | None) -> "Figure":
    """The figure of `plot_repair`."""
    stages = stages_of(rows)
    last = max(rows, key=lambda row: row.stage).printable()
    return stages_figure(stages, title or last.model, describe_repair(last))


def stages_figure(stages: Sequence[RepairStage], title: str | None, note: str) -> "Figure":
    """Draw stages of a repair in the order in which they are given."""
    wide = _STAGE * max(len(stages), 3)
    figure = new_figure(_LEFT + wide + _RIGHT, _BOTTOM + _HEIGHT + _LEGEND, title, note)
    axes = add_axes(figure, _LEFT, _BOTTOM, wide, _HEIGHT)
    style_axes(axes)
    shown = measures_of(stages)
    thick = 0.6 / len(shown)
    for number, (name, values) in enumerate(shown.items()):
        colour = _COLOURS[number]
        middles = [at + thick * (number - (len(shown) - 1) / 2) for at in range(len(stages))]
        bars = axes.bar(middles, [v or 0.0 for v in values], 0.92 * thick, color=colour, label=name)
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=7.5, color=colour)
    names = ["\n".join(wrap(printable(stage.name), _STAGE - 6)) for stage in stages]
    losses = [f"loss {stage.loss:.3g}" for stage in stages]
    ticks = [f"{name}\n{loss}" for name, loss in zip(names, losses, strict=True)]
    axes.set_xticks(range(len(stages)), ticks, fontsize=7.5)
    axes.set_xlim(-0.5, max(len(stages), 3) - 0.5)
    axes.set_ylim(0, 100)
    axes.set_ylabel("Images (%)", labelpad=5)
    axes.legend(
        frameon=False, fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1.04), ncols=2,
        borderpad=0, borderaxespad=1.2,
    )  # fmt: skip
    return figure
