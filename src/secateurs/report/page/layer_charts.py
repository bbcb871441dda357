"""What each layer kept: a heat map over ratios, bars for one ratio, histograms of weights."""

from collections.abc import Sequence
from typing import Any

from secateurs.report.number_text import percent
from secateurs.report.page.colours import DENSE, LINES
from secateurs.report.page.figures import axis, heatmap, names_axis, plain, plotly_figure
from secateurs.report.page.page_parts import Chart, Table, Toggle, cell
from secateurs.results import LayerRow

_SETTING = ("model", "prune_type", "granularity", "scope", "score", "p_bern", "seed")
_KEPT = (
    "%{customdata}<br>%{y}<br><b>%{z:.1f}%</b> of the weights kept, asked to prune %{x}"
    "<extra></extra>"
)
_PALE, _DARK = f"{DENSE}40", LINES[0]
_MOST = 60
"""Layers in a chart; a network with more shows those with the most weights."""


def layer_charts(rows: Sequence[LayerRow]) -> list[Chart]:
    """Charts of the layers of a run; none without rows."""
    rows = _distinct(rows)
    if not rows:
        return []
    several = len({row.p_prune for row in rows}) > 1
    kept = _heatmap(rows) if several else _bars(rows)
    counted = [row for row in rows if row.histogram]
    return [kept, *([_histograms(counted)] if counted else [])]


def layer_tables(rows: Sequence[LayerRow]) -> list[Table]:
    """A table of the layers of a run; none without rows."""
    rows = _distinct(rows)
    if not rows:
        return []
    settings = _settings(rows)
    cells = [
        {
            "setting": cell(name),
            "asked %": cell(round(100 * row.p_prune, 6)),
            "layer": cell(row.layer),
            "weights": cell(row.total, "{:,}"),
            "kept": cell(row.kept, "{:,}"),
            "kept %": cell(100 * row.ratio, "{:.2f}"),
        }
        for name, own in settings.items()
        for row in own
    ]
    table = Table.of("Weights kept in each layer", cells)
    return [table if len(settings) > 1 else table.without(["setting"])]


def _distinct(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Each row once: a repaired network has the masks of the one that was not repaired."""
    return list(dict.fromkeys(row.printable() for row in rows))


def _settings(rows: Sequence[LayerRow]) -> dict[str, list[LayerRow]]:
    """The rows of each setting, under the values in which it differs from others."""
    varying = [name for name in _SETTING if len({getattr(row, name) for row in rows}) > 1]
    found: dict[str, list[LayerRow]] = {}
    for row in rows:
        values = [_words(row, name) for name in varying]
        found.setdefault(", ".join(values), []).append(row)
    return found


def _words(row: LayerRow, name: str) -> str:
    value = getattr(row, name)
    shown = f"{value:g}" if name == "p_bern" else str(value)
    return f"{name} {shown}" if name in ("p_bern", "seed") else shown


def _largest(rows: Sequence[LayerRow]) -> list[str]:
    """The names of the layers that a chart shows, in the model's order."""
    totals = {row.layer: row.total for row in rows}
    chosen = set(sorted(totals, key=lambda name: -totals[name])[:_MOST])
    return [name for name in totals if name in chosen]


def _left_out(rows: Sequence[LayerRow]) -> str:
    every = len({row.layer for row in rows})
    return f" The {_MOST} largest of {every} layers." if every > _MOST else ""


def _heatmap(rows: Sequence[LayerRow]) -> Chart:
    settings = _settings(rows)
    traces: list[dict[str, Any]] = []
    for view, own in enumerate(settings.values()):
        # Other models have other layers, and other runs other ratios.
        names, ratios = _largest(own), sorted({row.p_prune for row in own})
        found = {(row.layer, row.p_prune): row for row in own}
        cells = [[found.get((name, ratio)) for ratio in ratios] for name in names]
        said = [[f"{row.kept:,} of {row.total:,}" if row else "" for row in line] for line in cells]
        traces.append(
            heatmap(
                [percent(ratio) for ratio in ratios],
                names,
                [[100 * row.ratio if row else None for row in line] for line in cells],
                shown="{:.0f}" if len(ratios) <= 12 else "",
                hover=_KEPT,
                hover_data=said,
                least=0,
                most=100,
                meta={"view": view} if len(settings) > 1 else {},
            )
        )
    longest = max(settings.values(), key=lambda own: len({row.layer for row in own}))
    most, ratios = len(_largest(longest)), {row.p_prune for row in rows}
    return Chart(
        "Weights kept in each layer, in percent, against the ratio asked for; "
        f"full colour: all are kept.{_left_out(longest)}",
        f"Heat map of the ratio of weights that each of {most} layers kept at {len(ratios)} "
        "ratios. The table of layers has the numbers.",
        plotly_figure(traces, names_axis("Ratio asked for"), names_axis(autorange="reversed")),
        views=list(settings) if len(settings) > 1 else [],
        view_label="Setting",
        height=max(220, 110 + 26 * most),
    )


def _bars(rows: Sequence[LayerRow]) -> Chart:
    names = _largest(rows)
    found = {row.layer: row for row in rows}
    kept = [100 * found[name].ratio for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [plain(name) for name in names],
        "x": kept,
        "customdata": [f"{found[name].kept:,} of {found[name].total:,}" for name in names],
        "hovertemplate": "%{y}<br><b>%{x:.2f}%</b>, %{customdata} weights kept<extra></extra>",
        "texttemplate": "%{x:.1f}",
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": LINES[0]},
        "meta": {},
    }
    return Chart(
        f"Weights kept in each layer, in percent.{_left_out(rows)}",
        f"Bars of the ratio of weights that each of {len(names)} layers kept, from "
        f"{min(kept):.1f}% to {max(kept):.1f}%.",
        plotly_figure(
            [bars],
            axis("Weights kept (%)", range=[0, 100]),
            names_axis(autorange="reversed"),
            margin={"l": 8, "r": 44, "t": 8, "b": 48},
        ),
        height=max(200, 90 + 28 * len(names)),
    )


def _histograms(rows: Sequence[LayerRow]) -> Chart:
    names = _largest(rows)
    traces: list[dict[str, Any]] = []
    for view, row in enumerate({r.layer: r for r in rows}[name] for name in names):
        counts = row.histogram or ([], [])
        width = row.most / max(len(counts[0]), 1)
        middles = [width * (number + 0.5) for number in range(len(counts[0]))]
        for toggle, (name, colour) in enumerate((("dense", _PALE), ("kept", _DARK))):
            traces.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": middles,
                    "y": counts[toggle],
                    "width": width,
                    "marker": {"color": colour, "line": {"width": 0}},
                    "hovertemplate": "|w| about %{x:.3g}<br><b>%{y:,}</b> weights"
                    "<extra>%{fullData.name}</extra>",
                    "meta": {"view": view, "toggle": toggle},
                }
            )
    return Chart(
        "Weights by absolute value: before any pruning, and those that were kept, after "
        f"retraining.{_left_out(rows)}",
        f"Histograms of the absolute weights of {len(names)} layers, dense and kept.",
        plotly_figure(
            traces,
            axis("Absolute value of the weight", rangemode="tozero", showgrid=False),
            axis("Weights"),
            barmode="overlay",
            bargap=0,
        ),
        [Toggle("dense", DENSE), Toggle("kept", LINES[0])],
        views=names,
        view_label="Layer",
        height=300,
    )
