"""Write pruned weights in compressed form, where it is smaller."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO

import numpy as np

from secateurs._tensors.blocks import Array
from secateurs.checkpoint.block_masks import Pruner
from secateurs.checkpoint.compressed_format import (
    BITMASK,
    KEY,
    VALUES,
    bitmask_size,
    describe,
    padded,
)
from secateurs.checkpoint.contents import Entry, StoredFile
from secateurs.checkpoint.file_blocks import Reader, Weight
from secateurs.checkpoint.file_writer import write_all
from secateurs.checkpoint.header import Described, write_header
from secateurs.checkpoint.rewrite import Written, shared_metadata

_FAR = 1 << 60  # an offset of as many digits as any


@dataclass
class _Contents:
    """What stands in the new file, for each old name: its new tensors, and its shape."""

    tensors: dict[str, list[Described]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def write_compressed(
    stored: StoredFile, weights: Sequence[Weight], pruner: Pruner, reader: Reader, target: FileIO
) -> Written:
    """Write a file whose pruned weights are compressed, where that is smaller.

    The header comes last, into room that was left for it, since nobody knows before how many values
    stay.

    Args:
        stored: the old file.
        weights: what is pruned in it, in the order in which ties are broken.
        pruner: prunes it.
        reader: reads the old file.
        target: the new file.
    """
    writer = _Writer(reader, target, len(_header(stored, _worst(stored, weights))))
    contents = _Contents()
    dense: dict[str, tuple[Weight, Callable[[], None]]] = {}
    for weight in weights:
        entry = weight.entry
        again = pruner.remember(weight)
        tensors = writer.compressed(weight, pruner)
        if tensors is None:
            dense[entry.name] = weight, again
        else:
            contents.tensors[entry.name], contents.shapes[entry.name] = tensors, entry.shape
    # The widest numbers first, so that all are aligned.
    left = [entry for entry in stored.entries if entry.name not in contents.tensors]
    for entry in sorted(left, key=lambda entry: -entry.itemsize):
        if entry.name in dense:
            weight, again = dense[entry.name]
            again()
            contents.tensors[entry.name] = writer.pruned(weight, pruner)
        else:
            contents.tensors[entry.name] = writer.copied(entry)
    head = _header(stored, contents, writer.room)
    write_all(target, 0, memoryview(head))
    target.truncate(len(head) + writer.place)
    names = [name for tensors in contents.tensors.values() for name, *_ in tensors]
    return Written(names, writer.place, len(head) + writer.place)


class _Writer:
    """Appends tensors to a file.

    Args:
        reader: reads the old file.
        target: the new file.
        room: the bytes left for its header.

    Attributes:
        room: as given.
        place: the bytes of tensors written so far.
    """

    def __init__(self, reader: Reader, target: FileIO, room: int):
        self.room, self.place = room, 0
        self._reader, self._target = reader, target

    def compressed(self, weight: Weight, pruner: Pruner) -> list[Described] | None:
        """Append a weight's bits and values; None, and nothing appended, if that is no smaller."""
        entry, bits = weight.entry, _Bits()
        middle = self.place + bitmask_size(entry.count)
        bits_end, end = self.place, middle
        for _, values in pruner.blocks(weight, self._reader):
            flat = values.reshape(-1)
            flags = flat != 0
            bits_end = self._write(bits_end, bits.add(flags))
            # Several times as fast as flat[flags].
            end = self._write(end, flat.take(np.flatnonzero(flags)))
        if padded(end) - self.place >= entry.nbytes:
            return None
        self._write(bits_end, bits.rest(middle - bits_end))
        count = padded(end - middle) // entry.itemsize
        self._write(end, np.zeros(padded(end - middle) - (end - middle), np.uint8))
        start, self.place = self.place, middle + padded(end - middle)
        return [
            (entry.name + BITMASK, "U8", (middle - start,), start, middle),
            (entry.name + VALUES, entry.dtype, (count,), middle, self.place),
        ]

    def pruned(self, weight: Weight, pruner: Pruner) -> list[Described]:
        """Append a weight's values as they are after pruning."""
        blocks = (values.reshape(-1) for _, values in pruner.blocks(weight, self._reader))
        return self._appended(weight.entry, blocks)

    def copied(self, entry: Entry) -> list[Described]:
        """Append a tensor as it is."""
        if entry.strides is None:
            blocks = self._reader.blocks(entry.start, entry.stop)
        else:
            blocks = self._reader.element_blocks(entry, 0, entry.count)
        return self._appended(entry, (values for _, values in blocks))

    def _appended(self, entry: Entry, blocks: Iterator[Array]) -> list[Described]:
        start = self.place
        for values in blocks:
            self.place = self._write(self.place, values)
        return [(entry.name, entry.dtype, entry.shape, start, self.place)]

    def _write(self, place: int, values: Array) -> int:
        if values.nbytes:
            write_all(self._target, self.room + place, values.data.cast("B"))
        return place + values.nbytes


class _Bits:
    """Flags into bytes, eight at a time."""

    def __init__(self) -> None:
        self._left = np.empty(0, bool)

    def add(self, flags: Array) -> Array:
        """The bytes that are full now."""
        if len(self._left):
            flags = np.concatenate([self._left, flags])
        full = len(flags) // 8 * 8
        self._left = flags[full:]
        return np.packbits(flags[:full], bitorder="little")

    def rest(self, size: int) -> Array:
        """The last byte, and zeros up to ``size`` bytes."""
        last = np.zeros(size, np.uint8)
        packed = np.packbits(self._left, bitorder="little")
        last[: len(packed)] = packed
        return last


def _header(stored: StoredFile, contents: _Contents, room: int = 0) -> bytes:
    """The header, its tensors in the order of the old file."""
    metadata = shared_metadata(stored) | {KEY: describe(contents.shapes)}
    order = stored.header or [entry.name for entry in stored.entries]
    tensors = [tensor for name in order for tensor in contents.tensors[name]]
    return write_header(tensors, metadata, length=room)


def _worst(stored: StoredFile, weights: Sequence[Weight]) -> _Contents:
    """The longest header there may be."""
    contents = _Contents({e.name: [(e.name, e.dtype, e.shape, _FAR, _FAR)] for e in stored.entries})
    for entry in (weight.entry for weight in weights):
        names = (entry.name, entry.name + BITMASK, entry.name + VALUES)
        contents.tensors[entry.name] = [(name, "U8", (_FAR,), _FAR, _FAR) for name in names]
        contents.shapes[entry.name] = entry.shape
    return contents
