"""Group the rows of a sweep into lines of a plot, and label them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from secateurs._io.text import counted, printable
from secateurs.report.names import ranking, short_names, short_paths
from secateurs.results import Record, Row

# What a dense accuracy depends on, in the order of a label.
_OF_DENSE = (
    *("model", "weights", "weights_sha256", "data", "split", "count"),
    *("img_size", "preprocess", "dtype", "amp"),
)
# How the model was pruned, without the ratio.
_METHOD = (
    *("prune_type", "granularity", "scope", "score", "repair"),
    *("layers", "include", "exclude", "p_bern", "seed"),
    *("calibration_count", "calibration_sha256"),
)

_TEXT: dict[str, Callable[[str], str]] = {
    "weights_sha256": lambda value: f"weights {value[:8]}",
    "count": lambda value: counted(int(value), "image"),
    "img_size": lambda value: f"{value} px",
    "amp": lambda value: "amp" if value == "True" else "no amp",
    "prune_type": lambda value: f"{value} pruning",
    "repair": lambda value: value.replace(";", " + ") or "plain",
    # Of a plain row these are empty: they say nothing of it.
    "calibration_count": lambda value: f"{value} for calibration" if value != "0" else "",
    "calibration_sha256": lambda value: f"calibration {value[:8]}" if value else "",
    "layers": lambda value: value or "default layers",
    "include": lambda value: f"include {value or 'nothing'}",
    "exclude": lambda value: f"exclude {value or 'nothing'}",
    "p_bern": lambda value: f"p_bern {float(value):g}",
    "seed": lambda value: f"seed {value}",
}


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        model: Short name of the model.
        dense_names: The fields in which its dense model differs from others, with their texts,
            such as {"model": "resnet18"}; empty if there is only one dense model.
        method: The other fields in which the series differ, such as {"granularity": "kernel"}.
        rows: The rows, by increasing p_prune; the dense row first, if there is one.
        dense: The row of the dense model, or None.
    """

    model: str
    dense_names: dict[str, str]
    method: dict[str, str]
    rows: tuple[Row, ...]
    dense: Row | None

    @property
    def names(self) -> tuple[str, ...]:
        """The texts of all fields in which the series differ, the most important first."""
        return (*self.dense_names.values(), *self.method.values())

    @property
    def label(self) -> str:
        """The label of the line."""
        return ", ".join(self.names) or self.model

    @property
    def dense_label(self) -> str:
        """The label of its dense model."""
        return ", ".join(self.dense_names.values()) or self.model


def split_series(rows: Sequence[Row]) -> list[Series]:
    """Group rows into series, in the order of their first rows.

    A row with p_prune = 0 is of the dense model, whatever its other settings: each series of that
    model starts with it. Of two rows of a series with one ratio, the later one counts.
    """
    rows = [row.printable() for row in rows]
    dense = {_values(row, _OF_DENSE): row for row in reversed(rows) if row.p_prune == 0}
    pruned = [row for row in rows if row.p_prune > 0] or list(dense.values())
    varying = varying_fields(pruned, (*_OF_DENSE, *_METHOD))
    short = {
        "model": short_names(row.model for row in pruned),
        "data": short_paths(row.data for row in pruned),
    }
    steps = _short_preprocess(pruned)
    groups: dict[tuple[str, ...], dict[float, Row]] = {}
    for row in pruned:
        first = dense.get(_values(row, _OF_DENSE))
        start = {0.0: first} if first else {}
        groups.setdefault(_values(row, varying), start)[row.p_prune] = row
    found: list[Series] = []
    for by_ratio in groups.values():
        ordered = tuple(by_ratio[ratio] for ratio in sorted(by_ratio))
        one = ordered[-1]
        texts = {name: _text(one, name, short, steps) for name in varying}
        names = {name: text for name, text in texts.items() if text}
        found.append(
            Series(
                model=short["model"][one.model],
                dense_names={name: text for name, text in names.items() if name in _OF_DENSE},
                method={name: text for name, text in names.items() if text and name in _METHOD},
                rows=ordered,
                dense=dense.get(_values(one, _OF_DENSE)),
            )
        )
    return found


def describe(rows: Sequence[Row]) -> str:
    """The images, the data, the units and the score of all rows, in one line."""

    def shared(name: str) -> str:
        values = {printable(getattr(row, name)) for row in pruned}
        return values.pop() if len(values) == 1 else ""

    pruned = [row for row in rows if row.p_prune > 0] or list(rows)
    parts: list[str] = []
    if shared("count") and shared("data"):
        split = f" ({shared('split')})" if shared("split") else ""
        # The rows have the whole path; its last part names the data.
        name = PurePath(shared("data")).name
        parts.append(f"{counted(int(shared('count')), 'image')} of {name}{split}")
    how = [shared(name) for name in ("granularity", "scope", "score")]
    if any(how):
        parts.append(ranking(*how))
    if shared("layers"):
        parts.append(f"in {shared('layers').replace(';', ', ')}")
    if shared("prune_type") == "gradient":
        parts.append("gradient pruning")
    if shared("repair"):
        parts.append(f"repaired by {shared('repair').replace(';', ' and ')}")
    counts = {row.calibration_count for row in pruned if row.calibration_count}
    if len(counts) == 1:
        parts.append(f"{counted(counts.pop(), 'image')} for calibration")
    if shared("p_bern") and float(shared("p_bern")) != 1:
        draws = counted(int(shared("draws")), "draw") if shared("draws") else "several draws"
        parts.append(f"p_bern {shared('p_bern')}, {draws}")
    return "; ".join(parts)


def varying_fields(rows: Sequence[Record], names: Sequence[str]) -> tuple[str, ...]:
    """The fields that are needed to tell the rows apart, the earlier ones first.

    A field whose value follows from earlier ones (the weights' digest from the model) is left out.
    """
    chosen: tuple[str, ...] = ()
    kinds = 1
    for name in names:
        with_it = len({_values(row, (*chosen, name)) for row in rows})
        if with_it > kinds:
            chosen, kinds = (*chosen, name), with_it
    return chosen


def _short_preprocess(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """For each model and preprocessing, what distinguishes it from the model's others; often ""."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        steps = row.preprocess.partition(", from ")[0].split(", ")
        found.setdefault(row.model, {})[row.preprocess] = steps
    short: dict[tuple[str, str], str] = {}
    for model, every in found.items():
        shared = set[str].intersection(*map(set, every.values()))
        own = {
            whole: ", ".join(s for s in steps if s not in shared) for whole, steps in every.items()
        }
        distinct = len(set(own.values())) == len(own)
        short |= {(model, whole): text if distinct else whole for whole, text in own.items()}
    return short


def _values(row: Record, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(getattr(row, name)) for name in names)


def _text(
    row: Row, name: str, short: dict[str, dict[str, str]], steps: dict[tuple[str, str], str]
) -> str:
    value = str(getattr(row, name))
    if name in short:
        return short[name][value]
    if name == "preprocess":
        return steps[row.model, value]
    return _TEXT[name](value) if name in _TEXT else value or f"no {name}"
