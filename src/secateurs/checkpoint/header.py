"""The header of a safetensors file: read with distrust, written as the format's own writer does."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.regular_files import remedy_for
from secateurs._io.text import quoted
from secateurs.checkpoint.contents import (
    BITS,
    LONGEST_NAME,
    MOST_DIMENSIONS,
    Entry,
    StoredFile,
)
from secateurs.errors import FailureError

_LONGEST = 100_000_000  # bytes, the limit of the format's own reader
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
            f"cannot read {path} as safetensors: {error}; {remedy_for(path)}"
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
    return parse_stream(path, file.read, size)


def parse_stream(path: Path, read: Callable[[int], bytes], size: int | None) -> StoredFile:
    """Read and check the header of what is read from its beginning to its end.

    Args:
        path: the file, for the result.
        read: gives the next bytes, as many as asked for unless there are fewer.
        size: all bytes there are; None if nobody knows.

    Raises:
        MalformedError: something in it cannot be.
    """
    start = read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_LONGEST, _MOST_BYTES if size is None else size - 8):
        raise MalformedError(_no_header(len(start) if size is None else size, length))
    return parse_header(path, read(length), size)


def parse_header(path: Path, text: bytes, size: int | None) -> StoredFile:
    """Read and check the JSON of a header.

    Args:
        path: the file, for the result.
        text: the header's bytes, without its length.
        size: the size of the whole file in bytes; None if the header alone says it.

    Raises:
        MalformedError: something in it cannot be.
    """
    try:
        parsed = parse_object(text, strict=True)
    except BrokenJSONError as error:
        raise MalformedError(f"its header is malformed ({error})") from error
    metadata = _metadata(parsed.pop(METADATA, None))
    origin = 8 + len(text)
    entries = [_entry(name, described, origin) for name, described in parsed.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    end = _end_of(entries, origin)
    if size is not None and end > size:
        raise MalformedError(f"its tensors need {end:,} bytes, the file has {size:,}")
    if size is not None and end < size:
        raise MalformedError(f"{size - end:,} of its bytes belong to no tensor")
    return StoredFile(path, end, tuple(entries), metadata, tuple(parsed))


def write_header(tensors: Iterable[Described], metadata: Mapping[str, str] | None) -> bytes:
    """Write a header, with its length, as the format's own writer does.

    Args:
        tensors: what it says of each.
        metadata: the ``__metadata__``, if any.
    """
    content: dict[str, Any] = {} if metadata is None else {METADATA: dict(metadata)}
    for name, dtype, shape, start, stop in tensors:
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that values are aligned
    return len(text).to_bytes(8, "little") + text


def _no_header(size: int, length: int) -> str:
    if size < 8:
        return f"it has {size} bytes"
    if length > _LONGEST:
        return f"its header claims {length:,} bytes, the format allows {_LONGEST:,}"
    return f"its header claims {length:,} bytes, the file has {size:,}"


def _metadata(found: Any) -> dict[str, str] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise MalformedError(f"its {METADATA} is not a table of strings")
    return found


def _entry(name: str, described: Any, origin: int) -> Entry:
    if len(name) > LONGEST_NAME:
        raise MalformedError(f"a tensor's name has {len(name):,} characters")
    tensor = f"tensor {quoted(name)}"
    if not isinstance(described, dict):
        raise MalformedError(f"its header says nothing of {tensor}")
    dtype = described.get("dtype")
    shape, offsets = _counts(described.get("shape")), _counts(described.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise MalformedError(f"{tensor} has the unknown dtype {quoted(dtype, 40)}")
    if shape is None or offsets is None or len(offsets) != 2:
        raise MalformedError(f"{tensor} has no shape or no offsets")
    start, stop = offsets
    bits = BITS[dtype]
    for size in shape:
        bits *= size or 1  # a tensor without elements may not hide its other sizes
        if bits > 8 * _MOST_BYTES or len(shape) > MOST_DIMENSIONS:
            raise MalformedError(f"{tensor} is larger than any file")
    bits = bits if all(shape) else 0
    if bits % 8 or stop - start != bits // 8:
        raise MalformedError(
            f"{tensor} lies in {stop - start:,} bytes, its shape needs {bits / 8:,.10g}"
        )
    return Entry(name, dtype, shape, origin + start, origin + stop)


def _counts(found: Any) -> tuple[int, ...] | None:
    if not isinstance(found, list):
        return None
    right = all(type(value) is int and 0 <= value <= _MOST_BYTES for value in found)
    return tuple(found) if right else None


def _end_of(entries: list[Entry], origin: int) -> int:
    """The byte behind the last tensor; tensors lie side by side from the header's end."""
    end = origin
    for entry in entries:
        if entry.start != end:
            what = "overlaps another" if entry.start < end else "lies behind a gap"
            raise MalformedError(f"tensor {quoted(entry.name)} {what}")
        end = entry.stop
    return end
