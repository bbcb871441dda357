"""Text and JSON that somebody else wrote: read within bounds, and quoted within bounds."""

import json
import math
import re
from pathlib import Path
from typing import Any

from secateurs.errors import FailureError

# What JSON becomes in memory grows with its brackets and commas, not with its length.
_MOST_PARTS = 4_000_000
_LONGEST = 100_000_000  # bytes
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class MalformedError(ValueError):
    """Why some bytes are not what they should be."""


def quoted(text: object, limit: int = 80) -> str:
    """Show a name from a file in an error: quoted, printable, and not longer than ``limit``.

    Example:
        >>> quoted("x" * 100, 10)
        "'xxxxxxxxxx...'"
    """
    word = str(text)
    return repr(word if len(word) <= limit else f"{word[:limit]}...")


def shortened(text: str, limit: int = 160) -> str:
    """Make one printable line of a message, not longer than ``limit``."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[: limit + 1])
    return line if len(line) <= limit else f"{line[:limit]}..."


def read_object(text: bytes, what: str = "it", *, strict: bool = True) -> dict[str, Any]:
    """Read a JSON object within bounds of memory.

    Args:
        text: UTF-8.
        what: the subject of the errors: "its header".
        strict: whether NaN, infinities and names that are there twice are errors. Configurations
            that people and other libraries write hold such.

    Raises:
        MalformedError: it is no JSON object, has too many parts, holds text that is not unicode,
            or what ``strict`` forbids.
    """
    if not text.lstrip().startswith(b"{"):
        raise MalformedError(f"{what} is not JSON")
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > _MOST_PARTS:
        raise MalformedError(f"{what} has more than {_MOST_PARTS:,} parts")
    hooks: dict[str, Any] = {
        "object_pairs_hook": _unique,
        "parse_constant": _refuse_constant,
        "parse_float": _finite,
    }
    try:
        parsed = json.loads(text.decode(), **(hooks if strict else {}))
        if _SURROGATE.search(text):
            json.dumps(parsed, ensure_ascii=False).encode()  # half a pair cannot be written again
    except MalformedError as error:
        raise MalformedError(f"{what} {error}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{what} is not JSON ({type(error).__name__})") from error
    return parsed


def read_json_file(
    path: Path, purpose: str = "as a configuration", *, strict: bool = False
) -> dict[str, Any]:
    """Read a JSON object from a file that somebody else wrote.

    Args:
        path: the file.
        purpose: for the error: what it should be.
        strict: as for `read_object`.

    Raises:
        FailureError: it is damaged, or too long.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise MalformedError(f"it has more than {_LONGEST:,} bytes")
        return read_object(path.read_bytes(), strict=strict)
    except (MalformedError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise FailureError(f"cannot read {path} {purpose}: {text}; get it again") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("names something twice")
    return found


def _refuse_constant(word: str) -> None:
    raise MalformedError(f"holds {word}")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise MalformedError("holds a number beyond all bounds")
    return number
