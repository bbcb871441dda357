"""The second pass: copy a file, with pruned values instead of the old ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
    """A new file.

    Attributes:
        names: the names of its tensors; None if they are those of the old file.
        nbytes: the size of its tensors in bytes.
        size: the size of the file in bytes.
    """

    names: Sequence[str] | None
    nbytes: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The offsets of everything in a new file.

    Attributes:
        head: the bytes that it begins with.
        copies: ranges of bytes that are copied unchanged: the offsets of the first byte and after
            the last in the old file, and the offset of the first in the new one.
        starts: the offset of the values of each tensor, by name.
        size: the size of the new file in bytes.
        reordered: tensors that are not pruned, and whose values have another order in the old file
            than in this one.
        keeps_order: whether pruned values keep the order of the old file.
    """

    head: bytes
    copies: tuple[tuple[int, int, int], ...]
    starts: dict[str, int]
    size: int
    reordered: tuple[Entry, ...] = ()
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
    """The layout of safetensors: the widest dtypes first, so that all values are aligned."""
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
    """The metadata of the file as safetensors.

    If several names share a tensor, it gets the first name, and the metadata maps the others to
    that, as ``safetensors.torch.save_model`` does. Files of ``torch.save`` get ``format: pt``.
    """
    metadata = {"format": "pt"} if stored.pickled else dict(stored.metadata or {})
    return metadata | {alias: entry.name for entry in stored.entries for alias in entry.aliases}


def write_same(
    stored: StoredFile, weights: Sequence[Weight], pruner: Pruner, reader: Reader, target: FileIO
) -> Written:
    """Write a file with its weights pruned, and every other byte unchanged.

    Args:
        stored: the old file.
        weights: the weights in it that compete, in the order in which ties are broken.
        pruner: prunes the weights.
        reader: reads the old file.
        target: the new file.
    """
    layout = same_layout(stored, weights)
    _write(pieces_of(layout, weights, pruner, reader), target)
    if stored.pickled:
        from secateurs.checkpoint.pickled import mend_checksums

        mend_checksums(stored.path, [weight.entry for weight in weights], target)
    return Written(None, layout.size, layout.size)


def write_safetensors(
    stored: StoredFile, weights: Sequence[Weight], pruner: Pruner, reader: Reader, target: FileIO
) -> Written:
    """Write the tensors of any file as safetensors; the arguments are those of `write_same`."""
    layout = safetensors_layout(stored, weights)
    _write(pieces_of(layout, weights, pruner, reader), target)
    names = [entry.name for entry in stored.entries]
    return Written(names, layout.size - len(layout.head), layout.size)


@dataclass(frozen=True)
class Piece:
    """Contiguous bytes of the new file.

    Attributes:
        start: the offset of the first byte.
        blocks: returns the bytes block by block; each is valid until the next.
        pruned: the name of the weight that this prunes, if it is one.
    """

    start: int
    blocks: Callable[[], Iterable[Array]]
    pruned: str | None = None


def pieces_of(
    layout: Layout, weights: Sequence[Weight], pruner: Pruner, reader: Reader
) -> Iterator[Piece]:
    """The bytes of the new file; the weights are in the order in which ties are broken."""
    if layout.head:
        yield Piece(0, lambda: [np.frombuffer(layout.head, np.uint8)])
    for start, stop, new_start in layout.copies:
        yield Piece(new_start, partial(_values, reader.blocks(start, stop)))
    for entry in layout.reordered:
        blocks = reader.element_blocks(entry, 0, entry.count)
        yield Piece(layout.starts[entry.name], partial(_values, blocks))
    for weight in weights:
        name, blocks = weight.entry.name, partial(_values, pruner.blocks(weight, reader))
        if weight.entry.strides is not None and layout.keeps_order:
            blocks = partial(_reordered, weight, pruner, reader)
        yield Piece(layout.starts[name], blocks, name)


def _values(blocks: Iterable[tuple[int, Array]]) -> Iterator[Array]:
    return (values for _, values in blocks)


def _write(pieces: Iterable[Piece], target: FileIO) -> None:
    for piece in pieces:
        offset = piece.start
        for values in piece.blocks():
            write_all(target, offset, values.data.cast("B"))
            offset += values.nbytes


def _reordered(weight: Weight, pruner: Pruner, reader: Reader) -> list[Array]:
    """The bytes of a pruned weight in the order of the old file."""
    entry = weight.entry
    values = np.empty(entry.nbytes, np.uint8)
    for index, block in pruner.blocks(weight, reader):
        raw = block.reshape(-1).view(np.uint8)
        values[index * entry.itemsize :][: len(raw)] = raw
    reordered = np.empty_like(values)
    numbers = values.view(INTEGERS[entry.itemsize])
    strided(reordered, entry)[...] = numbers.reshape(entry.shape)
    return [reordered]


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
