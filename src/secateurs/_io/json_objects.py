"""Reads JSON from outside, within bounds, and checks the types of its values."""

import json
import math
import os
import re
from typing import Any, cast

from secateurs._io.regular_files import open_regular
from secateurs._io.text import printable, quoted, storable
from secateurs.errors import FailureError

# The memory that JSON takes grows with its brackets and commas, not with its length.
_MOST_PARTS = 4_000_000
_LONGEST = 100_000_000  # bytes of a file
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DEEPEST = 50  # this package writes five levels at most
_LARGEST = 2**63 - 1  # other tools have no column type for larger whole numbers


class BrokenJSONError(ValueError):
    """Text is no JSON, or a value in it is of the wrong type; the message says why."""


def parse(text: bytes | str, *, strict: bool = False) -> Any:
    """Read JSON in UTF-8.

    Args:
        text: the JSON.
        strict: whether to refuse a byte order mark, NaN, infinities, unpaired surrogates and
            repeated names in one object, which configurations of other libraries may contain.

    Raises:
        BrokenJSONError: the text is no JSON, is nested too deeply, has millions of parts, holds a
            number of thousands of digits, or something that ``strict`` refuses.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8" if strict else "utf-8-sig")
        if sum(map(text.count, "[{,")) > _MOST_PARTS:
            raise BrokenJSONError(f"it has more than {_MOST_PARTS:,} parts")
        value = _parse_strictly(text) if strict else json.loads(text)
    except BrokenJSONError:
        raise
    except UnicodeDecodeError as error:
        raise BrokenJSONError(f"byte {error.start} is no UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"{f'line {error.lineno}, ' if error.lineno > 1 else ''}column {error.colno}"
        raise BrokenJSONError(f"it is not JSON: {error.msg} in {where}") from None
    except (RecursionError, MemoryError):
        raise BrokenJSONError("it is nested too deeply") from None
    except ValueError as error:
        raise BrokenJSONError("it holds a number of thousands of digits") from error
    _check_depth(value)
    return value


def parse_object(text: bytes | str, *, strict: bool = False) -> dict[str, Any]:
    """`parse` JSON that must be an object."""
    return as_object(parse(text, strict=strict))


def read_object_file(
    path: str | os.PathLike[str], purpose: str = "as a configuration", *, strict: bool = False
) -> dict[str, Any]:
    """Read a file that holds a JSON object; ``purpose`` says in errors what it should be.

    Raises:
        FailureError: the file cannot be read, is no regular file, is too long, or holds no object.
    """
    try:
        with open_regular(path) as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise BrokenJSONError(f"it has more than {_LONGEST:,} bytes")
        return parse_object(text, strict=strict)
    except FileNotFoundError as error:
        raise FailureError(f"there is no file {printable(path)} to read {purpose}") from error
    except (OSError, BrokenJSONError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FailureError(
            f"cannot read {printable(path)} {purpose}: {reason}; mend it, or get it again"
        ) from error


def as_object(value: Any) -> dict[str, Any]:
    """Check that a value is an object."""
    if not isinstance(value, dict):
        raise BrokenJSONError(f"{quoted(value)} is not an object")
    return cast(dict[str, Any], value)


def member(value: Any, name: str) -> Any:
    """The value that an object has for a name."""
    found = as_object(value)
    if name not in found:
        raise BrokenJSONError(f"{quoted(found)} has no {name!r}")
    return found[name]


def as_list(value: Any) -> list[Any]:
    """Check that a value is a list."""
    if not isinstance(value, list | tuple):  # a tuple if it was not written to a file yet
        raise BrokenJSONError(f"{quoted(value)} is not a list")
    return list(cast(list[Any], value))


def two(value: Any) -> tuple[Any, Any]:
    """Check that a value is a list of two."""
    found = as_list(value)
    if len(found) != 2:
        raise BrokenJSONError(f"{quoted(value)} is not a list of two")
    return found[0], found[1]


def as_text(value: Any) -> str:
    """Check that a value is text."""
    if not isinstance(value, str):
        raise BrokenJSONError(f"{quoted(value)} is not text")
    return value


def as_whole(value: Any, least: int = 0, most: int = _LARGEST) -> int:
    """Check that a value is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BrokenJSONError(f"{quoted(value)} is not a whole number from {least} to {most}")
    return value


def as_number(value: Any, least: float = 0.0, most: float = math.inf) -> float:
    """Check that a value is a finite number from ``least`` to ``most``."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not least <= value <= most or not abs(value) < float("1e300"):
        raise BrokenJSONError(f"{quoted(value)} is not a number from {least:g} to {most:g}")
    return float(value)


def plain(value: Any) -> Any:
    """Convert a value to what JSON can hold, as if it were written and read again.

    Objects that JSON does not know become text; characters that UTF-8 cannot hold become escapes.
    """
    return _storable(json.loads(json.dumps(value, default=str)))


def _parse_strictly(text: str) -> Any:
    value = json.loads(
        text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
    )
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BrokenJSONError("it holds half a character") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BrokenJSONError("it names something twice")
    return found


def _refuse_constant(word: str) -> None:
    raise BrokenJSONError(f"it holds {word}")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise BrokenJSONError("it holds a number beyond all bounds")
    return number


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        found = cast(dict[str, Any], value)
        return {storable(name): _storable(part) for name, part in found.items()}
    if isinstance(value, list):
        return [_storable(part) for part in cast(list[Any], value)]
    return storable(value) if isinstance(value, str) else value


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [part for outer in level for part in _parts(outer)]
        if not level:
            return
    raise BrokenJSONError("it is nested too deeply")


def _parts(value: Any) -> list[Any]:
    """The objects and lists in an object or a list."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in cast(Any, inner) if isinstance(part, dict | list)]
