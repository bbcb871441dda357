"""The cells of a heat map: squares of side 1, the first row on top."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = 7.0
"""Size of the letters of the names of rows and columns, points."""

Colour = str | tuple[float, ...]


def shade(dark: tuple[float, ...], share: float) -> Colour:
    """A colour between white (for a share of 0) and the dark one (for a share of 1)."""
    return tuple(1 - share * (1 - part) for part in dark)


def draw_cell(axes: "Axes", across: int, down: int, colour: Colour) -> None:
    """Fill the cell of a column and a row, both counted from 0."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((across, down), 1, 1, facecolor=colour, edgecolor="white"))


def label_cells(
    axes: "Axes", columns: Sequence[str], rows: Sequence[str], *, named: bool = True
) -> None:
    """Write the names of the columns and, if `named`, of the rows, without ticks."""
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=NAME, pad=3)
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    axes.set_yticks([i + 0.5 for i in range(len(rows))] if named else [])
    if named:
        axes.set_yticklabels(rows, multialignment="right")
