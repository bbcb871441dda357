"""Names at the ends of lines instead of a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateurs.report.spread import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL = 8.0
"""Size of the letters of a label, points."""

LINE = 10.8
"""Height of one label, points."""

_NEAR = 7.0  # points from the end of a line to a label beside it
_FAR = 18.0  # the same where leader lines need room
_STILL = 1.0  # a label moved by less needs no leader line


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

    # Not from the outlines of the letters, which takes most of the time of a figure.
    font = FontProperties(size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def place(
    axes: "Axes", labels: Sequence[Label], line: float, width: float, height: float
) -> list[float]:
    """Write the labels to the right of the axes, `line` points apart at least.

    A label that had to move, or whose line ends early, is joined to its line's end by a thin line.

    Args:
        axes: Where the lines are.
        labels: One a line.
        line: The height of a label, points.
        width: Width of the axes, points.
        height: Height of the axes, points.

    Returns:
        The middle of each label, points above the axes' lower edge.
    """
    places = spread([label.y for label in labels], line, 0.0, height)
    joined = [
        abs(place - label.y) > _STILL or label.x < width - _NEAR
        for label, place in zip(labels, places, strict=True)
    ]
    left = width + (_FAR if any(joined) else _NEAR)
    for label, place, join in zip(labels, places, joined, strict=True):
        axes.text(
            left / width,
            place / height,
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
                [label.y / height, label.y / height, place / height],
                transform=axes.transAxes,
                color=label.colour,
                linewidth=0.5,
                alpha=0.6,
                clip_on=False,
                zorder=1,
            )
    return places
