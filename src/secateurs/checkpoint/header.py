"""Headers of safetensors: read with every number checked, and written as the library does."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.regular_files import reading, remedy_for
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
"""Name, dtype, shape, and the offsets of the first byte and after the last, after the header."""


class MalformedError(ValueError):
    """The reason why some bytes are not a file of this format."""


def read_header(path: Path) -> StoredFile:
    """Read the header of a safetensors file.

    Raises:
        FailureError: it is cut short, or its header is wrong: its length, offsets that overlap,
            leave gaps or are outside the file, sizes that contradict shapes.
    """
    try:
        with reading(path), path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            return parse_header(path, file.read, size)
    except MalformedError as error:
        raise FailureError(
            f"cannot read {path} as safetensors: {error}; {remedy_for(path)}"
        ) from error


def parse_header(path: Path, read: Callable[[int], bytes], size: int | None) -> StoredFile:
    """Read and check the header of a stream.

    Args:
        path: the file, for the result.
        read: returns the next bytes, fewer than asked for only at the end.
        size: the size of the stream in bytes; None if it is unknown.
    """
    start = read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_LONGEST, _MOST_BYTES if size is None else size - 8):
        raise MalformedError(_no_header(len(start) if size is None else size, length))
    try:
        parsed = parse_object(read(length), strict=True)
    except BrokenJSONError as error:
        raise MalformedError(f"its header is malformed ({error})") from error
    metadata = _metadata(parsed.pop(METADATA, None))
    origin = 8 + length
    aliases: dict[str, list[str]] = {}
    for alias, name in (metadata or {}).items():
        if name in parsed and alias not in parsed:  # tied, by safetensors.torch.save_model
            aliases.setdefault(name, []).append(alias)
    entries = [
        _entry(name, described, origin, tuple(aliases.get(name, ())))
        for name, described in parsed.items()
    ]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    end = _end_of(entries, origin)
    if size is not None and end > size:
        raise MalformedError(f"its tensors need {end:,} bytes, the file has {size:,}")
    if size is not None and end < size:
        raise MalformedError(f"{size - end:,} of its bytes belong to no tensor")
    return StoredFile(path, end, tuple(entries), metadata)


def write_header(tensors: Iterable[Described], metadata: Mapping[str, str] | None) -> bytes:
    """Write a header, with its length, as the format's own writer does."""
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


def _entry(name: str, described: Any, origin: int, aliases: tuple[str, ...]) -> Entry:
    if len(name) > LONGEST_NAME:
        raise MalformedError(f"a tensor's name has {len(name):,} characters")
    tensor = f"tensor {quoted(name)}"
    if not isinstance(described, dict):
        raise MalformedError(f"its header does not describe {tensor}")
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
            f"{tensor} has {stop - start:,} bytes, its shape needs {bits / 8:,.10g}"
        )
    return Entry(name, dtype, shape, origin + start, origin + stop, aliases)


def _counts(found: Any) -> tuple[int, ...] | None:
    if not isinstance(found, list):
        return None
    right = all(type(value) is int and 0 <= value <= _MOST_BYTES for value in found)
    return tuple(found) if right else None


def _end_of(entries: list[Entry], origin: int) -> int:
    """The offset after the last tensor. Tensors begin at ``origin`` and leave no gaps."""
    end = origin
    for entry in entries:
        if entry.start != end:
            what = "overlaps another" if entry.start < end else "comes after a gap"
            raise MalformedError(f"tensor {quoted(entry.name)} {what}")
        end = entry.stop
    return end
