"""Colours, markers and dashes of lines, chosen for colour-blind readers and for grey print."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateurs.report.series import Series

# M. Okabe and K. Ito, "Color universal design" (2008), without yellow, which fades on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (1, 1)), (0, (5, 1, 1, 1)))

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#222222",
    "text.color": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "text.parse_math": False,  # a "$" in a model's name is a "$"
    "svg.fonttype": "none",  # text, not outlines
    "svg.hashsalt": "secateurs",  # the same rows give the same file
}
"""matplotlib settings of every figure."""


@dataclass(frozen=True)
class LineStyle:
    """The colour, marker and dashes of a line; ``text`` is the colour of its label."""

    colour: str
    text: str
    marker: str
    filled: bool
    dash: str | tuple[int, tuple[float, ...]]


def line_styles(every: Sequence[Series]) -> list[LineStyle]:
    """Styles of series: colour and marker by the first name, filling and dashes by the others."""
    firsts = list(dict.fromkeys(series.names[:1] for series in every))
    rests = list(dict.fromkeys(series.names[1:] for series in every))
    found: list[LineStyle] = []
    for series in every:
        first, rest = firsts.index(series.names[:1]), rests.index(series.names[1:])
        colour = _COLOURS[first % len(_COLOURS)]
        found.append(
            LineStyle(
                colour=colour,
                text=_darker(colour),
                marker=_MARKERS[first % len(_MARKERS)],
                filled=rest % 2 == 0,
                dash=_DASHES[(rest // 2) % len(_DASHES)],
            )
        )
    return found


def variant_styles(variants: Sequence[str]) -> dict[str, LineStyle]:
    """The style of each variant of a benchmark: plain dark, noise pale, others coloured."""
    found = {
        "plain": LineStyle("#222222", "#222222", "o", filled=True, dash="-"),
        "noise": LineStyle("#9a9a9a", "#777777", "x", filled=True, dash=_DASHES[1]),
    }
    others = [name for name in dict.fromkeys(variants) if name not in found]
    colours = _COLOURS[:-1]  # the grey one is near to plain
    for number, name in enumerate(others):
        colour, cycle = colours[number % len(colours)], number // len(colours)
        dash, marker = _DASHES[cycle % len(_DASHES)], _MARKERS[(number + 1) % len(_MARKERS)]
        found[name] = LineStyle(colour, _darker(colour), marker, filled=cycle % 2 == 0, dash=dash)
    return found


def _darker(colour: str) -> str:
    # Letters in the light colours of the palette would be hard to read.
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(0.82 * part):02x}" for part in parts)
