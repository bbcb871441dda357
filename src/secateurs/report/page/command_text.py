"""The command that makes rows again, rebuilt from the rows where the run recorded none."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from secateurs.report.grouping import grey_levels
from secateurs.results import Record, RetrainRow, Row, TransferRow

Options = Mapping[str, Iterable[Any] | bool]
"""The values of each option; True for one without values."""


def command_of(rows: Sequence[Any]) -> str:
    """A command line that asks for the rows of a run, or "" for kinds that are not known here."""
    writer = _WRITERS.get(type(rows[0]))
    if writer is None:
        return ""
    name, options = writer(rows)
    words = ["secateurs", name]
    for option, values in options.items():
        if isinstance(values, bool):
            words += [f"--{option}"] * values
            continue
        shown = list(dict.fromkeys(_word(value) for value in values if value not in ("", None)))
        if shown:
            words += [f"--{option}", *shown]
    return " ".join(map(shlex.quote, words))


def _word(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _each(rows: Sequence[Any], *names: str) -> dict[str, list[Any]]:
    return {name.replace("_", "-"): [getattr(row, name) for row in rows] for name in names}


def _patterns(row: Any) -> dict[str, list[str]]:
    names = ("layers", "include", "exclude")
    return {name: getattr(row, name).split(";") for name in names}


def _of_sweep(rows: Sequence[Row]) -> tuple[str, Options]:
    pruned = [row for row in rows if row.p_prune > 0] or rows
    drawn = any(row.draws > 1 for row in pruned)
    kinds = [each for each in pruned if each.prune_type != "global"] and pruned
    options = {
        "arch": [rows[0].model],
        "weights": [rows[0].weights],
        "data": [rows[0].data],
        "split": [rows[0].split],
        "limit": [rows[0].count],
        **_each(rows, "p_prune"),
        "p-bern": [row.p_bern for row in pruned if row.p_bern != 1],
        "draws": [row.draws for row in pruned if drawn][:1],
        **_each(kinds, "prune_type"),
        **_each(pruned, "granularity", "scope", "score"),
        **_patterns(pruned[0]),
        "seed": [rows[0].seed],
        "img-size": [rows[0].img_size],
    }
    return "sweep", options


def _of_retraining(rows: Sequence[RetrainRow]) -> tuple[str, Options]:
    first = next((row for row in rows if row.phase == "retrain"), rows[0])
    longest = {
        phase: max((row.epoch for row in rows if row.phase == phase), default=0)
        for phase in ("dense", "retrain")
    }
    options = {
        "arch": [first.model],
        "weights": [first.weights if first.weights != "random" else ""],
        "data": [first.data.partition(";")[0]],
        "ratio": [first.p_prune],
        "schedule": [first.schedule.split(",")[0].split()[0]],
        "regrow": [first.regrowth if first.regrowth != "none" else ""],
        "distill": [first.distill or ""],
        "temperature": [first.temperature if first.distill else ""],
        "granularity": [first.granularity],
        "scope": [first.scope],
        "score": [first.score],
        **_patterns(first),
        "dense-epochs": [longest["dense"]],
        "epochs": [longest["retrain"]],
        "lr": [first.learning_rate],
        "weight-decay": [first.weight_decay],
        "batch-size": [first.train_batch_size],
        "augment": [first.augment],
        "seeds": sorted({row.seed for row in rows}),
    }
    return "retrain", options


def _of_transfer(rows: Sequence[TransferRow]) -> tuple[str, Options]:
    groups = list(dict.fromkeys(row.surrogates for row in rows if row.surrogates))
    surrogates = list(dict.fromkeys(name for group in groups for name in group.split(";")))
    targets = [row.target for row in rows if row.target not in surrogates]
    pruned = [row for row in rows if row.recipe == "dwp"]
    first, counts = rows[0], {row.search_part: row.count for row in rows}
    attacks = [row for row in rows if row.recipe != "noise"] or rows
    options = {
        "surrogates": surrogates,
        "targets": targets,
        "data": [first.data],
        "split": [first.split],
        "limit": [sum(counts.values())],
        "search": "search" in counts,
        "search-images": [counts.get("search", "")],
        "method": [first.method],
        "passes": {row.passes for row in attacks} - {1},
        "every": [min(row.step for row in attacks)],
        "eps": [grey_levels(first.eps)],
        "alpha": [grey_levels(first.alpha)],
        "steps": [max(row.steps for row in rows)],
        "recipe": [row.recipe for row in rows if row.recipe not in ("", "noise")],
        **_each(pruned, "p_prune", "p_bern", "granularity", "scope", "score", "redraw"),
        "seeds": sorted({row.seed for row in rows}),
        "img-size": [first.img_size],
        "batch-size": [first.batch_size],
    }
    return "transfer", options


_WRITERS: Mapping[type[Record], Callable[[Any], tuple[str, Options]]] = {
    Row: _of_sweep,
    RetrainRow: _of_retraining,
    TransferRow: _of_transfer,
}
