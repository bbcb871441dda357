"""The part of a page that shows a training that prunes: its curves and its outcome."""

import statistics
from collections.abc import Sequence
from typing import Any

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.report.number_text import interval_text, rounded_percent
from secateurs.report.page.colours import DENSE, line_colour
from secateurs.report.page.figures import axis, band, curve, plotly_figure
from secateurs.report.page.page_parts import Chart, Fact, Section, Table, Toggle, cell
from secateurs.report.retrain_outcomes import (
    RetrainOutcome,
    describe_retrain,
    outcome_of,
    with_deviation,
)
from secateurs.results import RetrainRow, wilson_interval

_HOVER = (
    "epoch %{x}, %{customdata[0]}<br>top-1 <b>%{y:.2f}%</b>, 95% interval %{customdata[1]}"
    "<extra>%{fullData.name}</extra>"
)
_PRUNED_HOVER = (
    "epoch %{x}<br><b>%{y:.2f}%</b> of the weights pruned<extra>%{fullData.name}</extra>"
)


def retrain_section(rows: Sequence[RetrainRow]) -> Section:
    """The headline, the curves and the table of one run; its rows may be of several seeds."""
    first = next((row for row in rows if row.phase == "retrain"), rows[0])
    outcome = _outcome(rows)
    epochs = [row for row in rows if row.split == "validation"]
    return Section(
        title=f"Retraining of {first.model}, {100 * first.p_prune:.4g}% pruned",
        headline=_headline(outcome),
        notes=[describe_retrain(rows)] if first.phase == "retrain" else [],
        facts=_facts(outcome),
        charts=[_chart(epochs)] if epochs else [],
        tables=[_table(rows)],
    )


def _outcome(rows: Sequence[RetrainRow]) -> RetrainOutcome | None:
    try:
        return outcome_of(rows)
    except InvalidArgumentError:  # no seed is finished
        return None


def _headline(outcome: RetrainOutcome | None) -> str:
    if outcome is None:
        return "No seed has been scored on test images yet."
    dense, pruned = with_deviation(outcome.dense), with_deviation(outcome.pruned)
    return (
        f"{outcome.compression:.1f} times fewer weights: the error on "
        f"{counted(outcome.count, 'image')} ({outcome.split}) went from {dense}% to {pruned}%."
    )


def _facts(outcome: RetrainOutcome | None) -> list[Fact]:
    if outcome is None:
        return []
    kept = round(statistics.fmean(outcome.kept))
    several = f", {outcome.seeds} seeds" if outcome.seeds > 1 else ""
    return [
        Fact(
            f"{outcome.compression:.1f}x",
            f"fewer weights: {kept:,} of {outcome.prunable:,} are kept",
        ),
        Fact(f"{with_deviation(outcome.pruned)}%", f"error, pruned{several}"),
        Fact(f"{with_deviation(outcome.dense)}%", f"error, dense{several}"),
    ]


def _chart(epochs: Sequence[RetrainRow]) -> Chart:
    seeds = sorted({row.seed for row in epochs})
    traces: list[dict[str, Any]] = []
    was_dense = any(row.phase == "dense" for row in epochs)
    toggles = [Toggle("before any pruning", DENSE)] * was_dense
    longest = 0
    for number, seed in enumerate(seeds):
        own = [row for row in epochs if row.seed == seed]
        dense = [row for row in own if row.phase == "dense"]
        pruned = [row for row in own if row.phase == "retrain"]
        name = f"seed {seed}" if len(seeds) > 1 else "with masks"
        traces += _traces(dense, 0, f"{name}, dense", DENSE, 0)
        traces += _traces(pruned, len(dense), name, line_colour(number), len(toggles))
        toggles.append(Toggle(name, line_colour(number)))
        longest = max(longest, len(own))
    # no ticks between epochs
    across = axis("Epoch", anchor="y2", rangemode="tozero", nticks=min(longest, 10))
    upper = axis("Validation top-1 (%)", domain=[0.38, 1])
    lower = axis("Pruned (%)", domain=[0, 0.28], range=[0, 103])
    ends, upper = epochs[-1], _late(upper, epochs)
    cut = min(row.top1 for row in epochs) < upper["range"][0]
    return Chart(
        "Validation accuracy of each epoch, and below it how many weights were pruned; "
        f"shaded: 95% interval.{' The lowest epochs lie below the axis.' * cut}",
        f"Curves of validation accuracy over {counted(len(epochs), 'epoch')} of "
        f"{counted(len(seeds), 'seed')}, ending at "
        f"{ends.top1:.2f}% with {rounded_percent(ends.achieved)} of the weights pruned.",
        plotly_figure(traces, across, upper, yaxis2=lower),
        toggles,
        height=480,
    )


def _late(upper: dict[str, Any], epochs: Sequence[RetrainRow]) -> dict[str, Any]:
    """The axis, without what the first epochs give, which would squeeze the rest."""
    late = sorted(epochs, key=lambda row: row.top1)[len(epochs) // 10 :]
    (low, _), (_, high) = _interval(late[0]), _interval(late[-1])
    return upper | {"range": [max(low - 1, 0), min(100.5, high + 1)]}


def _interval(row: RetrainRow) -> tuple[float, float]:
    low, high = wilson_interval(row.correct, max(row.count, 1))
    return 100 * low, 100 * high


def _traces(
    rows: Sequence[RetrainRow], offset: int, name: str, colour: str, toggle: int
) -> list[dict[str, Any]]:
    if not rows:
        return []
    along = [float(offset + row.epoch) for row in rows]
    low, high = zip(*map(_interval, rows), strict=True)
    said = [
        [f"{rounded_percent(row.achieved)} pruned", interval_text(a, b)]
        for row, a, b in zip(rows, low, high, strict=True)
    ]
    meta = {"toggle": toggle}
    return [
        band(along, low, high, colour, meta=meta),
        curve(
            name, along, [row.top1 for row in rows], colour,
            hover=_HOVER, hover_data=said, meta=meta,
        ),
        curve(
            name, along, [100 * row.achieved for row in rows], colour,
            hover=_PRUNED_HOVER, meta=meta, mode="lines", yaxis="y2",
        ),
    ]  # fmt: skip


def _table(rows: Sequence[RetrainRow]) -> Table:
    cells = [
        {
            "seed": cell(row.seed),
            "phase": cell(row.phase),
            "epoch": cell(row.epoch),
            "images": cell(f"{row.count:,} ({row.split})"),
            "top-1 %": cell(row.top1, "{:.2f}"),
            "loss": cell(row.loss, "{:.3f}"),
            "training loss": cell(row.train_loss if row.split == "validation" else None, "{:.3f}"),
            "pruned %": cell(100 * row.achieved, "{:.2f}"),
            "kept": cell(row.kept, "{:,}"),
            "seconds": cell(row.duration, "{:.1f}"),
        }
        for row in rows
    ]
    return Table.of("Every epoch, and the scores on test images", cells)
