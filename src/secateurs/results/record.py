"""What all kinds of result rows share: plain values in named columns, and back."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, Self, get_type_hints

from secateurs._text import printable
from secateurs.errors import FailureError


class Record:
    """One line of a results file; a kind of rows is a frozen dataclass that derives from it.

    Attributes:
        KIND: What makes such rows, as an error calls it: "sweep".
        ASKED: The columns that say what was asked for, as against what was measured.
    """

    KIND: ClassVar[str]
    ASKED: ClassVar[tuple[str, ...]]

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(_types(cls))

    @property
    def key(self) -> tuple[Any, ...]:
        """What was asked for, without what was measured: two rows with one key are one result."""
        return tuple(getattr(self, name) for name in self.ASKED)

    def as_dict(self) -> dict[str, Any]:
        """The row as plain Python values, in the order of the columns."""
        types = _types(type(self))
        return {name: _plain(name, kind, getattr(self, name)) for name, kind in types.items()}

    def printable(self) -> Self:
        """The same row with every text in it fit to be shown; see `secateurs._text.printable`."""
        values = {name: getattr(self, name) for name in _types(type(self))}
        if all(value.isprintable() for value in values.values() if isinstance(value, str)):
            return self
        safe = {n: printable(v) if isinstance(v, str) else v for n, v in values.items()}
        return type(self)(**safe)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a row from a line of results.jsonl or of results.csv (where all is text).

        Columns that this version does not know are left out: a newer version wrote them.

        Raises:
            FailureError: A column is missing, or holds something of the wrong kind.
        """
        types = _types(cls)
        missing = [name for name in types if name not in values]
        if missing:
            raise FailureError(
                f"a result row lacks {', '.join(missing)}; it was not written by this version:"
                f" run the {cls.KIND} again with another --output"
            )
        return cls(**{name: _plain(name, kind, values[name]) for name, kind in types.items()})


@cache
def _types(kind: type[Record]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]


def _to_bool(value: Any) -> bool:
    if isinstance(value, str):
        return {"True": True, "False": False}[value]
    return bool(value)


def _to_optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None or value == "" else convert(value)


# int and float also take numpy's scalars and the text of a csv cell.
_CONVERT: dict[Any, Callable[[Any], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: _to_bool,
    int | None: _to_optional(int),
    float | None: _to_optional(float),
}


def _plain(name: str, kind: Any, value: Any) -> Any:
    try:
        return _CONVERT[kind](value)
    except (TypeError, ValueError, KeyError):
        raise FailureError(
            f"column {name} of a result row holds {value!r}, which is not a"
            f" {kind.__name__ if isinstance(kind, type) else 'number'}"
        ) from None
