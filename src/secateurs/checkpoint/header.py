"""The header of a safetensors file: read with distrust, written as the format's own writer does."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from secateurs.checkpoint.stored import BITS, Entry, StoredFile
from secateurs.errors import FailureError

_LONGEST = 100_000_000  # bytes, the limit of the format's own reader
# What JSON becomes in memory grows with its brackets and commas, not with its length.
_MOST_PARTS = 4_000_000
_MOST_BYTES = 1 << 62
METADATA = "__metadata__"

Described = tuple[str, str, tuple[int, ...], int, int]
"""A tensor's name, dtype, shape, first byte, and byte behind the last, from the header's end."""


class MalformedError(ValueError):
    """Why some bytes are no header."""


def read_header(path: Path) -> StoredFile:
    """Read what a safetensors file holds, without its values.

    Raises:
        FailureError: it is cut short, or its header lies: lengths, offsets that overlap or leave
            gaps or point outside, sizes that contradict shapes.
    """
    try:
        with path.open("rb") as file:
            return parse_file(path, file)
    except MalformedError as error:
        raise FailureError(
            f"cannot read {path} as safetensors: {error}; it is damaged or of another format, get "
            "the file again"
        ) from error
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error


def parse_file(path: Path, file: BinaryIO) -> StoredFile:
    """Read and check what stands at the beginning of a file.

    Raises:
        MalformedError: something in it cannot be.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(_LONGEST, size - 8):
        raise MalformedError(_no_header(size, length))
    return parse_header(path, file.read(length), size)


def parse_header(path: Path, text: bytes, size: int) -> StoredFile:
    """Read and check the JSON of a header.

    Args:
        path: the file, for the result.
        text: the header's bytes, without its length.
        size: the size of the whole file in bytes.

    Raises:
        MalformedError: something in it cannot be.
    """
    parsed = read_json(text)
    metadata = _metadata(parsed.pop(METADATA, None))
    origin = 8 + len(text)
    entries = [_entry(name, described, origin) for name, described in parsed.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_cover(entries, origin, size)
    return StoredFile(path, size, tuple(entries), metadata, tuple(parsed))


def read_json(text: bytes) -> dict[str, Any]:
    """Read JSON that somebody else wrote, within bounds of memory.

    Raises:
        MalformedError: it is no JSON object, names something twice, or has too many parts.
    """
    if not text.lstrip().startswith(b"{"):
        raise MalformedError("its header is not JSON")
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > _MOST_PARTS:
        raise MalformedError(f"its header has more than {_MOST_PARTS:,} parts")
    try:
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if not isinstance(parsed, dict):
            raise MalformedError("its header is not a JSON object")
        for name in parsed:
            name.encode()  # half of a surrogate pair cannot be written again
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"its header is not JSON ({type(error).__name__})") from error
    return parsed


def write_header(
    tensors: Iterable[Described],
    metadata: Mapping[str, str] | None,
    *,
    length: int = 0,
) -> bytes:
    """Write a header, with its length, as the format's own writer does.

    Args:
        tensors: what it says of each.
        metadata: the ``__metadata__``, if any.
        length: bytes that the result must have at least; spaces fill it up.
    """
    content: dict[str, Any] = {} if metadata is None else {METADATA: dict(metadata)}
    for name, dtype, shape, start, stop in tensors:
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(length - 8)
    text += b" " * (-len(text) % 8)  # so that values are aligned
    return len(text).to_bytes(8, "little") + text


def _no_header(size: int, length: int) -> str:
    if size < 8:
        return f"it has {size} bytes"
    if length > _LONGEST:
        return f"its header claims {length:,} bytes, the format allows {_LONGEST:,}"
    return f"its header claims {length:,} bytes, the file has {size:,}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("its header names something twice")
    return found


def _refuse_constant(word: str) -> None:
    raise MalformedError(f"its header holds {word}")


def _metadata(found: Any) -> dict[str, str] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise MalformedError(f"its {METADATA} is not a table of strings")
    try:
        "".join((*found, *found.values())).encode()
    except ValueError as error:
        raise MalformedError(f"its {METADATA} is not unicode") from error
    return found


def _entry(name: str, described: Any, origin: int) -> Entry:
    if not isinstance(described, dict):
        raise MalformedError(f"its header says nothing of tensor {name[:80]!r}")
    dtype = described.get("dtype")
    shape, offsets = _counts(described.get("shape")), _counts(described.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise MalformedError(f"tensor {name[:80]!r} has the unknown dtype {str(dtype)[:40]!r}")
    if shape is None or offsets is None or len(offsets) != 2:
        raise MalformedError(f"tensor {name[:80]!r} has no shape or no offsets")
    start, stop = offsets
    bits = BITS[dtype]
    for size in shape:
        bits *= size
        if bits > 8 * _MOST_BYTES:
            raise MalformedError(f"tensor {name[:80]!r} is larger than any file")
    if bits % 8 or stop - start != bits // 8:
        raise MalformedError(
            f"tensor {name[:80]!r} lies in {stop - start:,} bytes, its shape needs {bits / 8:,.10g}"
        )
    return Entry(name, dtype, shape, origin + start, origin + stop)


def _counts(found: Any) -> tuple[int, ...] | None:
    if not isinstance(found, list):
        return None
    right = all(type(value) is int and 0 <= value <= _MOST_BYTES for value in found)
    return tuple(found) if right else None


def _check_cover(entries: list[Entry], origin: int, size: int) -> None:
    """Tensors lie side by side, from the header's end to the file's."""
    place = origin
    for entry in entries:
        if entry.start != place:
            what = "overlaps another" if entry.start < place else "lies behind a gap"
            raise MalformedError(f"tensor {entry.name[:80]!r} {what}")
        place = entry.stop
    if place > size:
        raise MalformedError(f"its tensors need {place:,} bytes, the file has {size:,}")
    if place < size:
        raise MalformedError(f"{size - place:,} of its bytes belong to no tensor")
