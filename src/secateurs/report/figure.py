"""What all figures share: how they are saved, their heads, and their axes."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import printable
from secateurs.errors import FailureError, InvalidArgumentError, require
from secateurs.report.labels import text_width
from secateurs.report.names import break_name
from secateurs.report.style import RC, Look
from secateurs.results.durable import replace_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDGE = 8.0
"""Margin around a figure, points."""

SMALL = 7.5
"""Size of the letters of a subtitle, points."""


class DrawingError(FailureError):
    """A figure cannot be drawn with this matplotlib, its fonts and its settings."""


def named_stem(path_stem: str | os.PathLike[str]) -> Path:
    """The path of a plot's files without their endings.

    Raises:
        InvalidArgumentError: It has no name for them, as ``.`` and ``/`` have none.
    """
    stem = Path(path_stem)
    if stem.name in ("", ".."):
        raise InvalidArgumentError(
            f"the plots need a name, and {stem} is a folder: write {stem / 'plot'}"
        )
    return stem


def write_figure(make: Callable[[], "Figure"], path_stem: str | os.PathLike[str]) -> list[Path]:
    """Make a figure in the house style, and write it as PNG and as SVG.

    The style and the backend are ours: settings of a ``matplotlibrc`` or of a notebook change
    nothing, but for the fonts behind ``font.sans-serif``.

    Args:
        make: Makes the figure; called with the style's settings of matplotlib.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: The path has no name for the files.
        DrawingError: It cannot be drawn.
        FailureError: The files cannot be written.
    """
    stem = named_stem(path_stem)
    try:
        with _house_style():
            pictures = _draw(make)
    except (InvalidArgumentError, MemoryError):
        raise
    except Exception as error:  # whatever matplotlib, its fonts or its settings come up with
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DrawingError(f"cannot draw {stem}: {reason}") from error
    contents = {stem.with_name(stem.name + suffix): made for suffix, made in pictures.items()}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailureError(
            f"cannot make the folder {stem.parent} ({error.strerror}): give the plot another path"
        ) from error
    replace_files(contents)
    return list(contents)


@contextmanager
def _house_style() -> Generator[None]:
    mpl = _matplotlib()
    # A letter that no font has is drawn as a box; the SVG keeps its text.
    with mpl.rc_context(), warnings.catch_warnings(action="ignore"):
        fonts = mpl.rcParams["font.sans-serif"]
        mpl.rcdefaults()
        mpl.rcParams.update({"font.sans-serif": fonts, **RC})
        yield


def _matplotlib() -> Any:
    """Import matplotlib, also where MPLBACKEND names a backend that is not installed here.

    Notebooks set it for every program that they start, and the import would fail. It says nothing
    about our figures, which are drawn on a canvas of their own.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        require("matplotlib", "a plot")
        mpl = importlib.import_module("matplotlib")
    except BaseException:
        # What is half imported would make the next import fail in another way.
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        raise
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):  # as the import itself does
            mpl.rcParams["backend"] = backend
    return mpl


def _draw(make: Callable[[], "Figure"]) -> dict[str, bytes]:
    """The figure as files, by suffix."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = make()
    FigureCanvasAgg(figure)
    pictures: dict[str, bytes] = {}
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata)
        pictures[suffix] = content.getvalue()
    return pictures


def wrap(text: str, width: float, size: float = SMALL) -> list[str]:
    """Break a text into lines that are at most `width` points wide."""
    width *= 0.98  # drawn on whole pixels, letters are up to 2% wider than their outlines
    lines: list[str] = []
    letters = max(int(width / (0.6 * size)), 1)
    words = [
        part
        for word in text.split()
        for part in (break_name(word, letters) if text_width(word, size) > width else [word])
    ]
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def head_height(title: str | None, lines: Sequence[str]) -> float:
    """Room in points for a title and the lines below it, with the gap to what follows."""
    return 18 + 16 * (title is not None) + 10 * len(lines)


def head(figure: "Figure", title: str | None, lines: Sequence[str]) -> None:
    """Write a title and the lines below it at the top left."""
    width, height = 72 * figure.get_size_inches()
    top = head_height(title, lines)
    if title is not None:
        title = printable(" ".join(title.split()))
        figure.text(EDGE / width, 1 - 17 / height, title, fontsize=10.5, fontweight="bold")
    for number, line in enumerate(reversed(lines)):
        up = 1 - (top - 14 - 10 * number) / height
        figure.text(EDGE / width, up, line, fontsize=SMALL, color="#666666")


def add_axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """Axes at a position given in points from the figure's lower left."""
    across, up = 72 * figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def quiet(axes: "Axes") -> None:
    """Two spines, a light grid across, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6)


def draw_line(
    axes: "Axes",
    along: Sequence[float],
    points: Sequence[tuple[float, float, float]],
    look: Look,
    *,
    crowded: bool,
    markersize: float = 4,
) -> None:
    """Draw values as a line with markers, over the shade between their low and high ends.

    Args:
        axes: Where to draw.
        along: Where each point stands.
        points: Value, low and high end of each.
        look: Colour, marker and dashes.
        crowded: Whether shades of many lines lie over each other.
        markersize: Side of a marker, points.
    """
    values, low, high = zip(*points, strict=True)
    axes.fill_between(
        along, low, high, color=look.colour, alpha=0.08 if crowded else 0.14, linewidth=0, zorder=2
    )
    axes.plot(
        along,
        values,
        color=look.colour,
        linewidth=1.4,
        linestyle=look.dash,
        marker=look.marker if len(points) <= 25 else None,
        markersize=markersize,
        markerfacecolor=look.colour if look.filled else "white",
        markeredgecolor=look.colour,
        markeredgewidth=1.0,
        clip_on=False,
        zorder=3,
    )
