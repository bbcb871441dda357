"""A measurement of speed in tables, in a figure and on a page: images a second against zeros."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import EDGE, add_axes, new_figure, style_axes
from secateurs.report.names import ranking
from secateurs.report.page.colours import DENSE, line_colour
from secateurs.report.page.figures import axis, curve, plotly_figure
from secateurs.report.page.page_parts import Chart, Section, Table, TableCell, Toggle, cell
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import SpeedRow
from secateurs.results.speed_row import break_even

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

Setting = tuple[str, int, int]
"""Model, batch size, threads."""

_DENSE, _FAST = "#555555", "#0072B2"
# In points (1/72 inch): a panel, and the room around it.
_WIDTH, _HEIGHT = 190.0, 120.0
_LEFT, _BOTTOM, _TOP, _RIGHT = 60.0, 34.0, 18.0, 10.0

_HOVER = "%{x:.1f}% zeros<br><b>%{y:.2f}</b> times as fast<extra>%{fullData.name}</extra>"


def settings_of(rows: Sequence[SpeedRow]) -> Mapping[Setting, list[SpeedRow]]:
    """The rows of each model, batch size and number of threads, by ascending ratio."""
    found: dict[Setting, list[SpeedRow]] = {}
    for row in sorted(rows, key=lambda row: row.achieved):
        found.setdefault((row.model, row.batch_size, row.threads), []).append(row)
    return dict(sorted(found.items()))


def print_speed(rows: Sequence[SpeedRow], console: "Console | None") -> None:
    """Print images a second, dense and accelerated, a table for each model."""
    every = settings_of(rows)
    tables: list[TextTable] = []
    for model in dict.fromkeys(model for model, _, _ in every):
        own = {key: found for key, found in every.items() if key[0] == model}
        rates = sorted(row.achieved for found in own.values() for row in found)
        columns = [{_percent(row.achieved): _cell(row) for row in found} for found in own.values()]
        heads = [
            "zeros",
            *(f"batch {batch}, {counted(threads, 'thread')}" for _, batch, threads in own),
        ]
        lines = [
            [ratio, *(column.get(ratio, "") for column in columns)]
            for ratio in dict.fromkeys(map(_percent, rates))
        ]
        tables.append(TextTable(heads, lines, model, names=0))
    meaning = "images a second: dense > accelerated, times as fast"
    show_tables(console, tables, meaning, *break_even_lines(rows))


def speed_markdown(rows: Sequence[SpeedRow]) -> str:
    """A row for each measurement, and below the table from where on pruning pays."""
    lines = [
        {
            "model": row.model,
            "batch": str(row.batch_size),
            "threads": str(row.threads),
            "zeros": _percent(row.achieved),
            "dense, images/s": rate_text(row.dense_rate),
            "accelerated": rate_text(row.rate),
            "gain": f"{row.speedup:.2f}x",
            "layers": f"{row.replaced} of {row.found}",
        }
        for own in settings_of(rows).values()
        for row in own
    ]
    said = "; ".join(dict.fromkeys(f"{row.processor}, {row.dtype}" for row in rows))
    return TextTable.of(lines).markdown(f"{' '.join(break_even_lines(rows))} {said}")


def break_even_lines(rows: Sequence[SpeedRow]) -> list[str]:
    """A sentence for each model, batch size and number of threads: from where on it pays."""
    lines: list[str] = []
    for (model, batch, threads), own in settings_of(rows).items():
        least = break_even(own)
        pays = (
            "not faster at any ratio" if least is None else f"faster from {_percent(least)} zeros"
        )
        lines.append(f"{model}, batch {batch}, {counted(threads, 'thread')}: {pays}.")
    return lines


def _cell(row: SpeedRow) -> str:
    return f"{rate_text(row.dense_rate)} > {rate_text(row.rate)} {row.speedup:.2f}x"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%"


def rate_text(images: float) -> str:
    """Images a second, with three digits or all before the point."""
    return f"{images:,.0f}" if images >= 100 else f"{images:.3g}"


def speed_figure(rows: Sequence[SpeedRow], title: str | None) -> "Figure":
    """Images a second, dense and accelerated, a panel for each batch size and number of threads.

    A dotted line marks the break-even: the least measured ratio from which on the accelerated
    network is faster.

    Raises:
        InvalidArgumentError: The rows are of several models.
    """
    every = settings_of(rows)
    models = sorted({model for model, _, _ in every})
    if len(models) > 1:
        raise InvalidArgumentError(
            f"a plot of speed shows one model, and these are of {', '.join(models)}"
            ": draw them one by one"
        )
    batches = sorted({batch for _, batch, _ in every})
    threads = sorted({count for _, _, count in every})
    across, up = _LEFT + _WIDTH + _RIGHT, _BOTTOM + _HEIGHT + _TOP
    row = next(iter(every.values()))[0]
    title = title or row.model
    method = ranking(row.granularity, row.scope, row.score)
    said = f"{method}; {row.processor}, {row.dtype}; dotted: faster from here on"
    figure = new_figure(across * len(threads) + EDGE, up * len(batches), title, said)
    for (_, batch, count), own in every.items():
        column, line = threads.index(count), len(batches) - 1 - batches.index(batch)
        axes = add_axes(figure, _LEFT + column * across, _BOTTOM + line * up, _WIDTH, _HEIGHT)
        _draw_panel(axes, own)
        axes.set_title(f"batch {batch}, {counted(count, 'thread')}", fontsize=8, loc="left", pad=4)
        if column == 0:
            axes.set_ylabel("Images a second")
        if line == 0:
            axes.set_xlabel("Weights that are zero (%)")
        if column == 0 and line == len(batches) - 1:
            axes.legend(frameon=False, fontsize=7.5, loc="lower left")
    return figure


def _draw_panel(axes: "Axes", rows: Sequence[SpeedRow]) -> None:
    along = [100 * row.achieved for row in rows]
    dense, fast = [row.dense_rate for row in rows], [row.rate for row in rows]
    style_axes(axes)
    options: dict[str, Any] = {"linewidth": 1.4, "markersize": 3.5, "clip_on": False}
    axes.plot(along, fast, color=_FAST, marker="o", label="accelerated", zorder=3, **options)
    axes.plot(along, dense, color=_DENSE, marker="s", ls=(0, (5, 3)), label="dense", **options)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
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


def speed_section(rows: Sequence[SpeedRow]) -> Section:
    """The headline, the curves and the table of measurements."""
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    best = max(rows, key=lambda row: row.speedup)
    headline, notes = "Not faster than dense at any ratio that was measured.", list[str]()
    if best.speedup > 1:
        headline = (
            f"At most {best.speedup:.2f} times as fast as dense: {best.model}, batch "
            f"{best.batch_size}, {counted(best.threads, 'thread')}, {100 * best.achieved:.1f}% "
            "zeros."
        )
        notes = break_even_lines(rows)
    return Section(
        title=f"Speed of {models}",
        headline=headline,
        notes=[*notes, f"{best.processor}, {best.dtype}"],
        charts=[_chart(rows)],
        tables=[_table(rows)],
    )


def _chart(rows: Sequence[SpeedRow]) -> Chart:
    traces = [
        curve("dense", [0.0, 100.0], [1.0, 1.0], DENSE, hover=_HOVER, dashed=True, mode="lines")
    ]
    toggles: list[Toggle] = []
    for number, ((model, batch, threads), own) in enumerate(settings_of(rows).items()):
        name, colour = f"{model}, batch {batch}, {counted(threads, 'thread')}", line_colour(number)
        toggles.append(Toggle(name, colour))
        along, gains = [100 * row.achieved for row in own], [row.speedup for row in own]
        meta = {"toggle": number}
        traces.append(curve(name, along, gains, colour, hover=_HOVER, meta=meta))
    return Chart(
        "Times as fast as dense against the weights that are zero; dashed: dense.",
        f"Curves of the gain in speed of {len(toggles)} settings. The table has the numbers.",
        plotly_figure(
            traces,
            axis("Weights that are zero (%)", range=[0, 100]),
            axis("Times as fast as dense", rangemode="tozero"),
        ),
        toggles,
    )


def _table(rows: Sequence[SpeedRow]) -> Table:
    cells = [
        {
            "model": cell(row.model),
            "batch": cell(row.batch_size),
            "threads": cell(row.threads),
            "zeros %": cell(100 * row.achieved, "{:.1f}"),
            "dense, images/s": TableCell(rate_text(row.dense_rate), row.dense_rate),
            "accelerated": TableCell(rate_text(row.rate), row.rate),
            "gain": cell(row.speedup, "{:.2f}"),
        }
        for row in rows
    ]
    return Table.of("Every measurement", cells)
