"""The compressed form of pruned tensors inside safetensors: which elements are there, and which.

A tensor NAME becomes two: ``NAME:bitmask`` (U8) has a bit for each element, the first in the lowest
bit of the first byte, set where the element's bytes are not all zero; ``NAME:values`` (of NAME's
dtype, one dimension) holds those elements in order. Both are filled up with zeros to a multiple of
8 bytes. The metadata's entry ``secateurs.compressed`` holds the version and the shapes, as JSON.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.text import quoted
from secateurs.checkpoint.contents import FLOATS, MOST_DIMENSIONS, Entry, StoredFile
from secateurs.errors import FailureError

KEY = "secateurs.compressed"
VERSION = 1
BITMASK, VALUES = ":bitmask", ":values"


@dataclass(frozen=True)
class Compressed:
    """A tensor in compressed form.

    Attributes:
        name: its name.
        shape: its shape.
        bitmask: where its bits lie.
        values: where its elements lie that are not zero.
    """

    name: str
    shape: tuple[int, ...]
    bitmask: Entry
    values: Entry

    @property
    def count(self) -> int:
        """How many elements it has."""
        return torch.Size(self.shape).numel()


def padded(size: int) -> int:
    """The next multiple of 8."""
    return -(-size // 8) * 8


def bitmask_size(count: int) -> int:
    """The bytes of a bitmask of so many elements."""
    return padded(-(-count // 8))


def describe(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What the metadata says of the compressed tensors."""
    content = {"version": VERSION, "tensors": {name: list(s) for name, s in shapes.items()}}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def is_compressed(stored: StoredFile) -> bool:
    """Whether some tensors of a file are in compressed form."""
    return stored.metadata is not None and KEY in stored.metadata


def compressed_tensors(stored: StoredFile) -> dict[str, Compressed]:
    """The compressed tensors of a file, by name; none in an ordinary file.

    Raises:
        FailureError: the metadata contradicts the tensors, or is of a later version.
    """
    if stored.metadata is None or KEY not in stored.metadata:
        return {}
    try:
        content = parse_object(stored.metadata[KEY], strict=True)
        if content.get("version") != VERSION:
            raise FailureError(
                f"{stored.path} is compressed in version {str(content.get('version'))[:40]} of the "
                f"format, and version {VERSION} is known here: install a newer secateurs"
            )
        shapes = content.get("tensors")
        if not isinstance(shapes, dict):
            raise BrokenJSONError("it names no tensors")
        entries = {entry.name: entry for entry in stored.entries}
        return {name: _compressed(name, shape, entries) for name, shape in shapes.items()}
    except BrokenJSONError as error:
        raise FailureError(
            f"cannot read {stored.path}: its metadata {KEY!r} is damaged ({error}); get it again"
        ) from error


def _compressed(name: str, shape: object, entries: dict[str, Entry]) -> Compressed:
    bitmask, values = entries.get(name + BITMASK), entries.get(name + VALUES)
    if bitmask is None or values is None or name in entries:
        raise BrokenJSONError(f"{quoted(name)} lacks its bits or its values")
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise BrokenJSONError(f"{quoted(name)} has no shape")
    sizes = [size for size in shape if type(size) is int and 0 <= size <= 8 * bitmask.nbytes]
    count = math.prod(sizes)
    if len(sizes) < len(shape) or count > 8 * bitmask.nbytes:
        raise BrokenJSONError(f"{quoted(name)} has another shape than its bits")
    fits = bitmask.dtype == "U8" and bitmask.nbytes == bitmask_size(count)
    if not fits or values.dtype not in FLOATS or len(values.shape) != 1:
        raise BrokenJSONError(f"{quoted(name)} has bits or values of another form")
    return Compressed(name, tuple(shape), bitmask, values)
