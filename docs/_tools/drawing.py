"""What the pictures of docs/ have in common: sizes, colours, and small files."""

import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from secateurs.report.figure import head, head_height, made_figure, style_axes

ROOT = Path(__file__).resolve().parents[2]
BLUE, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
GREY, PALE = "#555555", "#b9c4cc"


def blank(width: float, height: float, title: str, lines: list[str]) -> Figure:
    """A figure for axes of a height, with a title and lines above them; sizes in points."""
    figure = Figure(figsize=(width / 72, (height + head_height(title, lines)) / 72))
    head(figure, title, lines)
    return figure


def rows_of_names(axes: Axes, names: list[str]) -> None:
    """Names down the left side, the first one on top, and vertical grid lines."""
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#e8e8e8", linewidth=0.6)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def write_asked(pictures: Mapping[str, Callable[[], Figure]]) -> None:
    """Draw the pictures that the command line names into docs/assets, each of 128 colours."""
    for name in sys.argv[1:]:
        content = io.BytesIO()
        made_figure(pictures[name]).savefig(content, dpi=160)
        small = Image.open(content).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        small.save(ROOT / "docs" / "assets" / f"{name}.png", optimize=True)
