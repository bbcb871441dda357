"""The part of a page that shows speed: images a second against the ratio of zeros."""

from collections.abc import Sequence

from secateurs._io.text import counted
from secateurs.report.page.colours import DENSE, line_colour
from secateurs.report.page.figures import axis, curve, plotly_figure
from secateurs.report.page.page_parts import Chart, Section, Table, TableCell, Toggle, cell
from secateurs.report.speed_report import break_even_lines, rate_text, settings_of
from secateurs.results import SpeedRow

_HOVER = "%{x:.1f}% zeros<br><b>%{y:.2f}</b> times as fast<extra>%{fullData.name}</extra>"


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
