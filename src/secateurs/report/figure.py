"""The common parts of all figures: saving, titles, and axes."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.durable import replace_files
from secateurs._io.text import printable
from secateurs.errors import FailureError, InvalidArgumentError, require
from secateurs.report.labels import text_width
from secateurs.report.names import break_name
from secateurs.report.style import RC, LineStyle

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
        InvalidArgumentError: The path has no file name, such as ``.`` and ``/``.
    """
    stem = Path(path_stem)
    if stem.name in ("", ".."):
        raise InvalidArgumentError(
            f"the plots need a name, and {stem} is a folder: write {stem / 'plot'}"
        )
    return stem


def write_figure(make: Callable[[], "Figure"], path_stem: str | os.PathLike[str]) -> list[Path]:
    """Make a figure in the style of this package, and write it as PNG and as SVG.

    Settings of a ``matplotlibrc`` or a notebook have no effect, except ``font.sans-serif``.

    Args:
        make: Makes the figure; called with this package's settings of matplotlib.
        path_stem: Path of the files without ".png" and ".svg"; its folder is made.

    Returns:
        The paths of the PNG (200 dots an inch) and the SVG.

    Raises:
        InvalidArgumentError: The path has no name for the files.
        DrawingError: The figure cannot be drawn.
        FailureError: The files cannot be written.
    """
    stem = named_stem(path_stem)
    with _own_style(str(stem)):
        pictures = _draw(make)
    contents = {stem.with_name(stem.name + suffix): made for suffix, made in pictures.items()}
    write_files(contents, "plot")
    return list(contents)


def write_files(contents: Mapping[Path, bytes], what: str) -> None:
    """Write files of one folder, which is made.

    Args:
        contents: What each file holds.
        what: What they are, for an error.

    Raises:
        FailureError: They cannot be written.
    """
    folder = next(iter(contents)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailureError(
            f"cannot make the folder {folder} ({error.strerror}): give the {what} another path"
        ) from error
    replace_files(contents)


def made_figure(make: Callable[[], "Figure"]) -> "Figure":
    """A figure in the style of this package, which a notebook shows.

    Raises:
        DrawingError: matplotlib is not installed, or cannot draw the figure.
    """
    with _own_style("the figure"):
        figure = make()
    # Notebooks know by themselves how to show figures of pyplot, which this is not.
    vars(figure)["_repr_png_"] = partial(_png, figure)
    return figure


def _png(figure: "Figure") -> bytes:
    with _own_style("the figure"):
        return _picture(figure, ".png", None)


@contextmanager
def _own_style(what: str) -> Generator[None]:
    """Within the block, matplotlib has the settings of this package; its errors name the figure."""
    try:
        mpl = _matplotlib()
        # matplotlib warns of letters that no font has: it draws a box, and the SVG keeps the text.
        with mpl.rc_context(), warnings.catch_warnings(action="ignore"):
            fonts = mpl.rcParams["font.sans-serif"]
            mpl.rcdefaults()
            mpl.rcParams.update({"font.sans-serif": fonts, **RC})
            yield
    except (InvalidArgumentError, MemoryError):
        raise
    except Exception as error:  # matplotlib, its fonts and its settings may raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DrawingError(f"cannot draw {what}: {reason}") from error


def _matplotlib() -> Any:
    """Import matplotlib, also if MPLBACKEND names a backend that is not installed.

    Notebooks set it for every program that they start, and the import would fail. These figures do
    not use it: they are drawn on a canvas of their own.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        require("matplotlib", "a plot")
        mpl = importlib.import_module("matplotlib")
    except BaseException:
        # A partial import would make the next import fail in another way.
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        raise
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):  # as the import itself does with an unknown backend
            mpl.rcParams["backend"] = backend
    return mpl


def _draw(make: Callable[[], "Figure"]) -> dict[str, bytes]:
    """The contents of the figure's files, by suffix."""
    figure = make()
    return {".png": _picture(figure, ".png", "Software"), ".svg": _picture(figure, ".svg", "Date")}


def _picture(figure: "Figure", suffix: str, without: str | None) -> bytes:
    """A figure as the content of a file, without an entry that differs from run to run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    content = io.BytesIO()
    metadata = {without: None} if without else None
    figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata)
    return content.getvalue()


def wrap(text: str, width: float, size: float = SMALL) -> list[str]:
    """Wrap a text to lines that are at most `width` points wide."""
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


def new_figure(width: float, height: float, title: str | None, note: str = "") -> "Figure":
    """A figure with a title and a note at its upper edge, and room for axes below.

    Args:
        width: Its width, points.
        height: The height of the room for axes, points.
        title: The title, or None.
        note: The text below the title; it is wrapped.
    """
    from matplotlib.figure import Figure

    lines = wrap(note, width - 2 * EDGE)
    figure = Figure(figsize=(width / 72, (height + head_height(title, lines)) / 72))
    head(figure, title, lines)
    return figure


def head_height(title: str | None, lines: Sequence[str]) -> float:
    """Height in points of a title and the lines below it, with the gap below them."""
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
    """Add axes; position and size are in points from the figure's lower left."""
    across, up = 72 * figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def style_axes(axes: "Axes") -> None:
    """Style axes with two spines, light horizontal grid lines, and small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6)


def draw_line(
    axes: "Axes",
    along: Sequence[float],
    points: Sequence[tuple[float, float, float]],
    style: LineStyle,
    *,
    crowded: bool,
    markersize: float = 4,
) -> None:
    """Draw values as a line with markers, over a shaded band from their low to their high ends.

    Args:
        axes: The axes.
        along: The horizontal coordinate of each point.
        points: Value, low and high end of each.
        style: Colour, marker and dashes.
        crowded: Whether the bands of many lines overlap.
        markersize: Side of a marker, points.
    """
    values, low, high = zip(*points, strict=True)
    axes.fill_between(
        along, low, high, color=style.colour, alpha=0.08 if crowded else 0.14, linewidth=0, zorder=2
    )
    axes.plot(
        along,
        values,
        color=style.colour,
        linewidth=1.4,
        linestyle=style.dash,
        marker=style.marker if len(points) <= 25 else None,
        markersize=markersize,
        markerfacecolor=style.colour if style.filled else "white",
        markeredgecolor=style.colour,
        markeredgewidth=1.0,
        clip_on=False,
        zorder=3,
    )
