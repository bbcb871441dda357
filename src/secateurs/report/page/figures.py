"""Figures of Plotly, as plain values: curves with intervals, heat maps, bars."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from secateurs.report.page.colours import (
    ABSENT,
    EQUAL,
    FAINT,
    GRID,
    HIGH,
    INK,
    LESS,
    LOW,
    MORE,
    PAPER,
)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

Values = Sequence[float | None]


def plain(text: str) -> str:
    """A text as Plotly shows it letter by letter; it would read tags and entities in it."""
    return escape(text, quote=False)


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis with a title and pale grid lines."""
    return {
        "title": {"text": plain(title), "standoff": 10},
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "ticklabelstandoff": 4,
        "fixedrange": True,  # on a phone, a finger on a chart scrolls the page
        **options,
    }


def names_axis(title: str = "", **options: Any) -> dict[str, Any]:
    """An axis of names, without lines and ticks between them."""
    return axis(title, type="category", showgrid=False, ticks="", **options)


def plotly_figure(
    traces: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any], **options: Any
) -> dict[str, Any]:
    """A figure with two axes, and without Plotly's legend, since the page has its own.

    Args:
        traces: What it shows, from `curve`, `band` and `heatmap`.
        x: The horizontal axis, from `axis` or `names_axis`.
        y: The vertical axis.
        options: Anything else that Plotly takes in a layout.
    """
    layout = {
        "xaxis": dict(x),
        "yaxis": dict(y),
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": FAINT,
            "font": {"color": INK, "family": FONT},
            "namelength": -1,
        },
        "showlegend": False,
        "hovermode": "closest",
        **options,
    }
    return {"data": list(traces), "layout": layout}


def curve(
    name: str,
    x: Values,
    y: Values,
    colour: str,
    *,
    hover: str,
    hover_data: Sequence[Sequence[Any]] = (),
    meta: Mapping[str, int] | None = None,
    dashed: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """A line with markers where it has few points.

    Args:
        name: What it shows.
        x: Where the points are.
        y: Their values.
        colour: Colour of the line.
        hover: The text at a point, in Plotly's notation.
        hover_data: For each point, what ``hover`` calls customdata.
        meta: Its toggle and view, see `secateurs.report.page.page_parts.Chart`.
        dashed: Whether the line is dashed.
        options: Anything else that Plotly takes.
    """
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 40 else "lines",
        "name": plain(name),
        "x": list(x),
        "y": list(y),
        "customdata": [list(each) for each in hover_data],
        "hovertemplate": hover,
        "line": {"color": colour, "width": 2, "dash": "dash" if dashed else "solid"},
        "marker": {"color": colour, "size": 6},
        "meta": dict(meta or {}),
        **options,
    }


def band(
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
    *,
    meta: Mapping[str, int],
) -> dict[str, Any]:
    """The shade between the low and the high ends of a curve's intervals."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*low, *reversed(high)],
        "fill": "toself",
        "fillcolor": f"{colour}26",  # the last two digits are the opacity
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
        "meta": dict(meta),
    }


def heatmap(
    x: Sequence[str],
    y: Sequence[str],
    z: Sequence[Values],
    *,
    shown: str = "{:.1f}",
    hover: str,
    least: float,
    most: float,
    scale: str = "share",
    hover_data: Sequence[Sequence[Any]] = (),
    meta: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A heat map with a number in each cell; cells without a value are left out.

    Args:
        x: Names of the columns.
        y: Names of the rows, the first one on top.
        z: The values, row by row.
        shown: How Python writes the number in a cell; "" shows none.
        hover: The text at a cell, in Plotly's notation.
        least: The value with the first colour.
        most: The value with the last colour.
        scale: "share" (from pale to dark), "difference" (two colours), or "absent" (grey).
        hover_data: For each cell, what ``hover`` calls customdata.
        meta: Its toggle and view.
    """
    colours = {
        "share": [[0, LOW], [1, HIGH]],
        "difference": [[0, LESS], [0.5, EQUAL], [1, MORE]],
        "absent": [[0, ABSENT], [1, ABSENT]],
    }
    return {
        "type": "heatmap",
        "x": [plain(name) for name in x],
        "y": [plain(name) for name in y],
        "z": [list(row) for row in z],
        "customdata": [list(row) for row in hover_data],
        "colorscale": colours[scale],
        "zmin": least,
        "zmax": most,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "text": [["" if v is None else shown.format(v) for v in row] for row in z],
        "texttemplate": "%{text}",
        "textfont": {"color": INK},
        "hovertemplate": hover,
        "hoverongaps": False,
        "meta": dict(meta or {}),
    }
