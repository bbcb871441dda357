"""Labels at the ends of lines, which do not overlap, instead of a legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL = 8.0
"""Size of the letters of a label, points."""

LINE = 10.8
"""Height of one label, points."""

_NEAR = 7.0  # points from the axes to the labels
_FAR = 18.0  # the same where leader lines need room
_STILL = 1.0  # a label that moved by less needs no leader line


@dataclass(frozen=True)
class Label:
    """A text and the end of the line that it names, in points from the axes' lower left."""

    text: str
    x: float
    y: float
    colour: str


def text_width(text: str, size: float) -> float:
    """Width in points of a text in the current font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    # Measuring the outlines of the letters instead would take most of the time of a figure.
    font = FontProperties(size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def write_labels(
    axes: "Axes", labels: Sequence[Label], line: float, width: float, height: float
) -> list[float]:
    """Write the labels to the right of the axes, `line` points apart at least.

    A label that had to move, or whose line ends early, is joined to its line's end by a thin line.

    Args:
        axes: The axes of the lines.
        labels: One for each line.
        line: The height of a label, points.
        width: Width of the axes, points.
        height: Height of the axes, points.

    Returns:
        The middle of each label, points above the axes' lower edge.
    """
    middles = spread([label.y for label in labels], line, 0.0, height)
    joined = [
        abs(middle - label.y) > _STILL or label.x < width - _NEAR
        for label, middle in zip(labels, middles, strict=True)
    ]
    left = width + (_FAR if any(joined) else _NEAR)
    for label, middle, join in zip(labels, middles, joined, strict=True):
        axes.text(
            left / width,
            middle / height,
            label.text,
            transform=axes.transAxes,
            color=label.colour,
            fontsize=LABEL,
            va="center_baseline",
            ha="left",
        )
        if join:
            axes.plot(
                [(label.x + 4) / width, (width + 4) / width, (left - 2) / width],
                [label.y / height, label.y / height, middle / height],
                transform=axes.transAxes,
                color=label.colour,
                linewidth=0.5,
                alpha=0.6,
                clip_on=False,
                zorder=1,
            )
    return middles


def spread(
    positions: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf
) -> list[float]:
    """Move positions as little as possible so that neighbours are at least `gap` apart.

    Minimises the sum of squared moves with the order kept (equal positions keep the order in which
    they were given). With t_i = y_i - i * gap for sorted y, that is isotonic regression of t,
    which pooling adjacent violators solves exactly; its solution clipped to the bounds is exact
    with bounds.

    Args:
        positions: The wanted positions.
        gap: The smallest distance between two.
        low: The lowest position.
        high: The highest position. If not all fit between `low` and `high`, they are `gap` apart
            around the middle, and exceed both bounds.

    Returns:
        The new positions, in the order of `positions`.

    Example:
        >>> spread([5.0, 5.0, 9.0], gap=2.0)
        [4.0, 6.0, 9.0]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    last = max(len(order) - 1, 0) * gap
    if high - low < last:
        middle = (low + high) / 2
        low, high = middle - last / 2, middle + last / 2
    blocks: list[tuple[float, int]] = []  # mean and size
    for rank, index in enumerate(order):
        mean, size = positions[index] - rank * gap, 1
        while blocks and blocks[-1][0] >= mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    moved = [0.0] * len(order)
    rank = 0
    for mean, size in blocks:
        start = min(max(mean, low), high - last)
        for _ in range(size):
            moved[order[rank]] = start + rank * gap
            rank += 1
    return moved
