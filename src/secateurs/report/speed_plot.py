"""The figure of a measurement of speed: images a second against the ratio of zeros."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted, printable
from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import EDGE, add_axes, new_figure, style_axes, write_figure
from secateurs.report.names import ranking
from secateurs.report.speed_table import settings_of
from secateurs.results import SpeedRow
from secateurs.results.speed_row import break_even

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DENSE, _FAST = "#555555", "#0072B2"
# In points (1/72 inch): a panel, and the room around it.
_WIDTH, _HEIGHT = 190.0, 120.0
_LEFT, _BOTTOM, _TOP, _RIGHT = 60.0, 34.0, 18.0, 10.0


def plot_speed(
    rows: Sequence[SpeedRow], path_stem: str | os.PathLike[str], *, title: str | None = None
) -> list[Path]:
    """Draw images a second, dense and accelerated, a panel for each batch size and threads.

    A dotted line marks the break-even: the least measured ratio from which on the accelerated
    network is faster.

    Args:
        rows: Of one model, in any order.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.
        title: First line above the figure; the model by default.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: There are no rows, or they are of several models.
        FailureError: The files cannot be written.
    """
    return write_figure(lambda: speed_figure(rows, title), path_stem)


def speed_figure(rows: Sequence[SpeedRow], title: str | None) -> "Figure":
    """The figure of `plot_speed`."""
    every = settings_of(rows)
    models = sorted({model for model, _, _ in every})
    if len(models) > 1:
        raise InvalidArgumentError(
            f"a plot of speed shows one model, and these are of {', '.join(map(printable, models))}"
            ": draw them one by one"
        )
    batches = sorted({batch for _, batch, _ in every})
    threads = sorted({count for _, _, count in every})
    across, up = _LEFT + _WIDTH + _RIGHT, _BOTTOM + _HEIGHT + _TOP
    row = next(iter(every.values()))[0]
    title = title or printable(row.model)
    method = ranking(row.granularity, row.scope, row.score)
    said = f"{method}; {row.processor}, {row.dtype}; dotted: faster from here on"
    figure = new_figure(across * len(threads) + EDGE, up * len(batches), title, said)
    for (_, batch, count), own in every.items():
        column, line = threads.index(count), len(batches) - 1 - batches.index(batch)
        axes = add_axes(figure, _LEFT + column * across, _BOTTOM + line * up, _WIDTH, _HEIGHT)
        _draw(axes, own)
        axes.set_title(f"batch {batch}, {counted(count, 'thread')}", fontsize=8, loc="left", pad=4)
        if column == 0:
            axes.set_ylabel("Images a second")
        if line == 0:
            axes.set_xlabel("Weights that are zero (%)")
        if column == 0 and line == len(batches) - 1:
            axes.legend(frameon=False, fontsize=7.5, loc="lower left")
    return figure


def _draw(axes: "Axes", rows: Sequence[SpeedRow]) -> None:
    along = [100 * row.achieved for row in rows]
    dense, fast = [row.dense_rate for row in rows], [row.rate for row in rows]
    style_axes(axes)
    options: dict[str, Any] = {"linewidth": 1.4, "markersize": 3.5, "clip_on": False}
    axes.plot(along, fast, color=_FAST, marker="o", label="accelerated", zorder=3, **options)
    axes.plot(along, dense, color=_DENSE, marker="s", ls=(0, (5, 3)), label="dense", **options)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.12 * max(*dense, *fast))
    least = break_even(rows)
    if least is None:
        return
    axes.axvline(100 * least, color=_FAST, linewidth=0.9, linestyle=":", zorder=1.5)
    right = least > 0.5  # the label is on the side with more room
    axes.annotate(
        f"{100 * least:.3g}%", (100 * least, 0.02), (-3 if right else 3, 2), color=_FAST,
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7.5,
        ha="right" if right else "left",
    )  # fmt: skip
