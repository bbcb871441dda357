"""The base of all kinds of result rows: plain values in named columns, written and read."""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, ClassVar, Self, get_type_hints

from secateurs._io.text import counted, listed, printable, quoted, storable
from secateurs.errors import Argument, FailureError

ROUNDING = 1e-6
"""By how much a percentage may differ from what the counts give."""

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,19}\s*")


COUNT, RATIO, PERCENT, SIZE = (0, 2**63 - 1), (0.0, 1.0), (0.0, 100.0), (0.0, math.inf)
"""Limits of numbers in columns."""

Limits = Mapping[str, tuple[float, float]]
"""The least and the greatest number in columns, by their names."""

_LIMITS: Limits = {
    **dict.fromkeys(("count", "correct", "targets", "units", "prunable", "kept"), COUNT),
    **dict.fromkeys(("img_size", "batch_size", "calibration_count"), COUNT),
    **dict.fromkeys(("p_prune", "p_bern", "achieved", "keep_at_least"), RATIO),
    **dict.fromkeys(("top1", "agreement"), PERCENT),
    **dict.fromkeys(("crop_pct", "param_count", "learning_rate", "duration"), SIZE),
}
"""Limits of the columns that several kinds of rows have; a kind may have its own instead."""


class Record:
    """One row of a results file; each kind of rows is a frozen dataclass derived from this.

    A column of one name means the same in all kinds of rows. These are in several of them:

    - `model`: What was asked for, such as `torchvision:resnet18`.
    - `weights`: Name of the weights that it had: a published name, a file name, "pretrained" or
      "random"; `weights_sha256`: First 16 hex digits of a SHA-256 over their contents.
    - `data`: Name of the data set or folder; `split`: Which part of it, such as "val", or "";
      `count`: Images scored.
    - `prune_type`: "global" (forward and backward pass) or "gradient" (backward pass alone).
    - `granularity`: "weight", "kernel" or "filter".
    - `scope`: Who competes with whom: "global", "layer", or "N:M", such as "2:4".
    - `score`: The criterion, such as "magnitude", or the name of a callable; `score_data`: Images
      whose gradients it used, or "".
    - `layers`: Kinds of layers that compete, joined by ";", or "" for the default; `include`: Globs
      of the weights that compete, likewise, or ""; `exclude`: Globs of weights that do not.
    - `p_prune`: Ratio of units that are candidates, 0 to 1; `p_bern`: Probability with which each
      candidate is pruned, 0 to 1; `seed`: Seed of scores and draws.
    - `calibration`: Name of the images, without labels, that the repair or the score used, or "";
      `calibration_sha256`: First 16 hex digits of a SHA-256 over these images as the network took
      them, or ""; `calibration_count`: How many they are.
    - `achieved`: Ratio of prunable weights (elements) that were pruned; `kept`: How many were kept;
      `prunable`: How many there are; `targets`: The same, `units`: How many units compete.
    - `top1`: Accuracy in percent; `correct`: Images right, of `count`.
    - `loss`: Mean cross-entropy in nats; may be NaN or infinite where pruning broke the network.
    - `param_count`: Parameters of the model in millions.
    - `img_size`: Side of the input in pixels; `crop_pct`: Side of the crop divided by the side of
      the resized image; `interpolation`: How images were resized, such as "bicubic"; `preprocess`:
      The whole preprocessing in one line.
    - `batch_size`: Images that ran at once; `amp`: Whether automatic mixed precision was on.
    - `device`: Where it ran, such as "cpu" or "cuda (NVIDIA H100)"; `dtype`: Data type of the
      weights, such as "float32"; `duration`: Seconds that the measurement took; `versions`:
      Versions of the software: "secateurs=..;torch=..;python=..".

    Attributes:
        KIND: The command that writes such rows, for errors: "sweep".
        LAST_ASKED: The columns up to this one say what was asked for; the others say what was
            measured.
        ALSO_ASKED: Later columns that say what was asked for, too.
        LIMITS: The least and the greatest number in columns of this kind; other columns have those
            that all kinds share, or take any finite number.
        UNLIMITED: Columns whose numbers may also be infinite or NaN.
    """

    KIND: ClassVar[str]
    LAST_ASKED: ClassVar[str]
    ALSO_ASKED: ClassVar[tuple[str, ...]] = ()
    LIMITS: ClassVar[Limits] = {}
    UNLIMITED: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        # The files of results are UTF-8, but a path need not be: other bytes become escapes.
        for name in _types(type(self)):
            value = getattr(self, name)
            if isinstance(value, str) and storable(value) != value:
                object.__setattr__(self, name, storable(value))

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(_types(cls))

    @classmethod
    @cache
    def asked(cls) -> tuple[str, ...]:
        """Names of the columns that say what was asked for."""
        columns = cls.columns()
        return (*columns[: columns.index(cls.LAST_ASKED) + 1], *cls.ALSO_ASKED)

    @property
    def key(self) -> tuple[Any, ...]:
        """What was asked for, without what was measured; rows of one key are the same result."""
        return tuple(getattr(self, name) for name in self.asked())

    def as_dict(self) -> dict[str, Any]:
        """The row as plain Python values, in the order of the columns."""
        types = _types(type(self))
        return {name: _plain(name, kind, getattr(self, name)) for name, kind in types.items()}

    def printable(self) -> Self:
        """The same row, every text in it made safe to print by `secateurs._io.text.printable`."""
        values = {name: getattr(self, name) for name in _types(type(self))}
        if all(value.isprintable() for value in values.values() if isinstance(value, str)):
            return self
        safe = {n: printable(v) if isinstance(v, str) else v for n, v in values.items()}
        return type(self)(**safe)

    @classmethod
    def renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row or configuration of an earlier version, with the current columns.

        Columns that earlier versions did not write have a default.
        """
        lacking = {n: value for n, value in _defaults(cls).items() if n not in values}
        return {**values, **lacking}  # in this order, so that files of this version stay the same

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a row from a row of results.jsonl, or of results.csv, where all values are text.

        Columns that this version does not know, which a newer one wrote, are left out.

        Raises:
            FailureError: A column is missing, holds a value of the wrong type or out of range, or
                contradicts another one.
        """
        types, values = _types(cls), cls.renamed(values)
        missing = [name for name in types if name not in values]
        if missing:
            raise FailureError(
                f"a result row lacks {listed(missing)}; it is no row of a {cls.KIND}, or was not"
                f" written by this version: run the {cls.KIND} again with another ",
                Argument("output"),
            )
        row = cls(**{name: _read(name, kind, values[name]) for name, kind in types.items()})
        for name in types:
            cls._check_number(name, getattr(row, name))
        row._check()
        return row

    def _check(self) -> None:
        """Refuse a row whose columns contradict each other, by a `FailureError`."""

    @classmethod
    def _check_number(cls, name: str, value: Any) -> None:
        if not isinstance(value, int | float) or name in cls.UNLIMITED:
            return
        least, most = cls.LIMITS.get(name) or _LIMITS.get(name, (-math.inf, math.inf))
        if not least <= value <= most or not math.isfinite(value):
            raise FailureError(
                f"column {name} of a result row holds {quoted(value)}, which cannot be: "
                f"it must be {_range(least, most)}"
            )


def check_part(column: str, part: int, whole: int, what: str = "weights") -> None:
    """Refuse a count of a part that is above the count of the whole.

    Raises:
        FailureError: ``part`` is above ``whole``.
    """
    if part > whole:
        raise FailureError(
            f"column {column} of a result row holds {part}, more than the {whole} {what} that "
            "there are"
        )


def check_accuracy(top1: float | None, correct: int | None, count: int) -> None:
    """Compare an accuracy in percent with the number of images right; None if none was scored.

    Raises:
        FailureError: They do not agree.
    """
    right = correct or 0
    expected = 100 * right / max(count, 1)
    if right > count or abs((top1 or 0.0) - expected) > ROUNDING:
        raise FailureError(
            f"column top1 of a result row holds {top1}, but {correct} of "
            f"{counted(count, 'image')} right give {expected}"
        )


@cache
def _types(kind: type[Record]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]


@cache
def _defaults(kind: type[Record]) -> dict[str, Any]:
    every = fields(kind)  # type: ignore[arg-type]
    return {field.name: field.default for field in every if field.default is not MISSING}


def _range(least: float, most: float) -> str:
    if math.isinf(most):
        return "a finite number" if math.isinf(least) else f"a finite number from {least:g}"
    return f"from {least:g} to {most:g}"


def _to_bool(value: Any) -> bool:
    known = {"True": True, "False": False, 0: False, 1: True}  # True == 1, also numpy's
    return known[value]


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, str) and not _WHOLE.fullmatch(value)):
        raise TypeError
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError
    if not -(2**63) <= number < 2**63:
        raise OverflowError
    return number


def _to_float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _to_optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None or value == "" else convert(value)


# Each also takes numpy's scalars and the text of a csv cell.
_CONVERT: dict[Any, Callable[[Any], Any]] = {
    str: str,
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    int | None: _to_optional(_to_int),
    float | None: _to_optional(_to_float),
}


def _read(name: str, kind: Any, value: Any) -> Any:
    """As `_plain`, but a column of text must hold text."""
    if kind is str and not isinstance(value, str | os.PathLike):
        raise _wrong(name, kind, value)
    return _plain(name, kind, value)


def _plain(name: str, kind: Any, value: Any) -> Any:
    try:
        return _CONVERT[kind](value)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise _wrong(name, kind, value) from None


def _wrong(name: str, kind: Any, value: Any) -> FailureError:
    words = kind.__name__ if isinstance(kind, type) else "number"
    return FailureError(
        f"column {name} of a result row holds {quoted(value)}, which is not a {words}"
    )
