"""The second pass: a copy of a file, with pruned values instead of the old ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO

import numpy as np

from secateurs._tensors.blocks import Array
from secateurs.checkpoint.block_masks import Pruner
from secateurs.checkpoint.contents import Entry, StoredFile
from secateurs.checkpoint.file_blocks import INTEGERS, Reader, Weight, strided
from secateurs.checkpoint.file_writer import write_all
from secateurs.checkpoint.header import Described, write_header


@dataclass(frozen=True)
class Written:
    """What a new file holds.

    Attributes:
        names: its tensors; None if they are those of the old file.
        nbytes: the bytes of its tensors.
        size: the bytes of the file.
    """

    names: Sequence[str] | None
    nbytes: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Where everything is in a new file.

    Attributes:
        head: the bytes that it begins with.
        copies: what is copied as it is: its first byte, the byte after its last, and the first
            byte of the copy.
        starts: where the values of a tensor begin, by name.
        size: all bytes of the new file.
        ordered: the tensors whose values have another order in the old file.
        keeps_order: whether values keep that order.
    """

    head: bytes
    copies: tuple[tuple[int, int, int], ...]
    starts: dict[str, int]
    size: int
    ordered: tuple[Entry, ...] = ()
    keeps_order: bool = False


def same_layout(stored: StoredFile, weights: Sequence[Weight]) -> Layout:
    """The layout of the old file."""
    copies: list[tuple[int, int, int]] = []
    offset = 0
    for entry in sorted((weight.entry for weight in weights), key=lambda entry: entry.start):
        if offset < entry.start:
            copies.append((offset, entry.start, offset))
        offset = max(offset, entry.stop)
    if offset < stored.size:
        copies.append((offset, stored.size, offset))
    starts = {weight.entry.name: weight.entry.start for weight in weights}
    return Layout(b"", tuple(copies), starts, stored.size, keeps_order=True)


def safetensors_layout(stored: StoredFile, weights: Sequence[Weight]) -> Layout:
    """A layout as safetensors: the largest elements first, so that all are aligned."""
    ordered = sorted(stored.entries, key=lambda entry: -entry.itemsize)
    described: list[Described] = []
    size = 0
    for entry in ordered:
        described.append((entry.name, entry.dtype, entry.shape, size, size + entry.nbytes))
        size += entry.nbytes
    head = write_header(described, shared_metadata(stored))
    starts = {name: len(head) + start for name, _, _, start, _ in described}
    pruned = {weight.entry.name for weight in weights}
    others = [entry for entry in ordered if entry.name not in pruned]
    copies = [(e.start, e.stop, starts[e.name]) for e in others if e.strides is None]
    strided_ones = tuple(entry for entry in others if entry.strides is not None)
    return Layout(head, tuple(copies), starts, len(head) + size, strided_ones)


def shared_metadata(stored: StoredFile) -> dict[str, str]:
    """The metadata of a file as safetensors.

    If several names share a tensor, the tensor has the first, and the metadata maps the others to
    it, as ``safetensors.torch.save_model`` does. Files of ``torch.save`` get ``format: pt``.
    """
    metadata = {"format": "pt"} if stored.pickled else dict(stored.metadata or {})
    return metadata | {alias: entry.name for entry in stored.entries for alias in entry.aliases}


def write_same(
    stored: StoredFile, weights: Sequence[Weight], pruner: Pruner, reader: Reader, target: FileIO
) -> Written:
    """Write a file with its weights pruned, and every other byte as it was.

    Args:
        stored: the old file.
        weights: what is pruned in it, in the order in which ties are broken.
        pruner: prunes it.
        reader: reads the old file.
        target: the new file.
    """
    written = _write(same_layout(stored, weights), weights, pruner, reader, target)
    if stored.pickled:
        from secateurs.checkpoint.pickled import mend_checksums

        mend_checksums(stored.path, [weight.entry for weight in weights], target)
    return written


def write_safetensors(
    stored: StoredFile, weights: Sequence[Weight], pruner: Pruner, reader: Reader, target: FileIO
) -> Written:
    """Write the tensors of any file as safetensors; the arguments are those of `write_same`."""
    layout = safetensors_layout(stored, weights)
    return _write(layout, weights, pruner, reader, target, [e.name for e in stored.entries])


def _write(
    layout: Layout,
    weights: Sequence[Weight],
    pruner: Pruner,
    reader: Reader,
    target: FileIO,
    names: Sequence[str] | None = None,
) -> Written:
    write_all(target, 0, memoryview(layout.head))
    for start, stop, target_start in layout.copies:
        for offset, values in reader.blocks(start, stop):
            write_all(target, target_start + offset - start, values.data)
    for entry in layout.ordered:
        for index, values in reader.element_blocks(entry, 0, entry.count):
            write_all(target, layout.starts[entry.name] + index * entry.itemsize, values.data)
    for weight in weights:
        entry, start = weight.entry, layout.starts[weight.entry.name]
        if entry.strides is not None and layout.keeps_order:
            write_all(target, start, _reordered(weight, pruner, reader).data)
            continue
        for index, values in pruner.blocks(weight, reader):
            write_all(target, start + index * entry.itemsize, values.data.cast("B"))
    return Written(names, layout.size - len(layout.head), layout.size)


def _reordered(weight: Weight, pruner: Pruner, reader: Reader) -> Array:
    """The bytes of a pruned weight in the order of the old file."""
    entry = weight.entry
    values = np.empty(entry.nbytes, np.uint8)
    for index, block in pruner.blocks(weight, reader):
        raw = block.reshape(-1).view(np.uint8)
        values[index * entry.itemsize :][: len(raw)] = raw
    reordered = np.empty_like(values)
    numbers = values.view(INTEGERS[entry.itemsize])
    strided(reordered, entry)[...] = numbers.reshape(entry.shape)
    return reordered


def overlapping(weights: Sequence[Weight], entries: Sequence[Entry]) -> tuple[str, str] | None:
    """The names of a pruned weight and another tensor that share bytes; None if there are none."""
    pruned = {weight.entry.name for weight in weights}
    latest: Entry | None = None
    for entry in sorted((e for e in entries if e.nbytes), key=lambda e: (e.start, e.stop)):
        if latest is not None and entry.start < latest.stop and {entry.name, latest.name} & pruned:
            return latest.name, entry.name
        if latest is None or entry.stop > latest.stop:
            latest = entry
    return None
