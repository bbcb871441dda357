"""The second pass: copy a file, with pruned values instead of the old ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO

import numpy as np

from secateurs._tensors.blocks import Array
from secateurs.checkpoint.block_masks import BlockPruner
from secateurs.checkpoint.contents import Entry, StoredFile
from secateurs.checkpoint.file_blocks import INTEGERS, Reader, Weight, strided
from secateurs.checkpoint.file_writer import write_all
from secateurs.checkpoint.header import Described, write_header


@dataclass(frozen=True)
class Written:
    """A new file.

    Attributes:
        nbytes: the size of its tensors in bytes.
        size: the size of the file in bytes.
        names: the names of its tensors; None if they are those of the old file.
    """

    nbytes: int
    size: int
    names: Sequence[str] | None = None


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
        names: the names of the tensors; None if all is as in the old file.
    """

    head: bytes
    copies: tuple[tuple[int, int, int], ...]
    starts: dict[str, int]
    size: int
    reordered: tuple[Entry, ...] = ()
    names: tuple[str, ...] | None = None

    def written(self, size: int) -> Written:
        """A file with this layout, which takes ``size`` bytes, compressed or not."""
        return Written(self.size - len(self.head), size, self.names)


def layout_of(stored: StoredFile, weights: Sequence[Weight], *, as_safetensors: bool) -> Layout:
    """The layout of a new file: that of the old one, or, if asked for, that of safetensors."""
    if as_safetensors and stored.pickled:
        return _safetensors_layout(stored, weights)
    copies: list[tuple[int, int, int]] = []
    offset = 0
    for entry in sorted((weight.entry for weight in weights), key=lambda entry: entry.start):
        if offset < entry.start:
            copies.append((offset, entry.start, offset))
        offset = max(offset, entry.stop)
    if offset < stored.size:
        copies.append((offset, stored.size, offset))
    starts = {weight.entry.name: weight.entry.start for weight in weights}
    return Layout(b"", tuple(copies), starts, stored.size)


def _safetensors_layout(stored: StoredFile, weights: Sequence[Weight]) -> Layout:
    """The widest dtypes first, so that all values are aligned.

    If several names share a tensor, it gets the first name, and the metadata maps the others to
    that, as ``safetensors.torch.save_model`` does.
    """
    ordered = sorted(stored.entries, key=lambda entry: -entry.itemsize)
    described: list[Described] = []
    size = 0
    for entry in ordered:
        described.append((entry.name, entry.dtype, entry.shape, size, size + entry.nbytes))
        size += entry.nbytes
    shared = {alias: entry.name for entry in stored.entries for alias in entry.aliases}
    head = write_header(described, {"format": "pt"} | shared)
    starts = {name: len(head) + start for name, _, _, start, _ in described}
    pruned = {weight.entry.name for weight in weights}
    others = [entry for entry in ordered if entry.name not in pruned]
    copies = [(e.start, e.stop, starts[e.name]) for e in others if e.strides is None]
    strided_ones = tuple(entry for entry in others if entry.strides is not None)
    names = tuple(entry.name for entry in stored.entries)
    return Layout(head, tuple(copies), starts, len(head) + size, strided_ones, names)


def write_file(
    stored: StoredFile,
    weights: Sequence[Weight],
    pruner: BlockPruner,
    reader: Reader,
    target: FileIO,
    *,
    as_safetensors: bool,
) -> Written:
    """Write a file with its weights, which are in the order in which ties are broken, pruned.

    Every other byte is unchanged, unless it becomes a file of safetensors, see `layout_of`.
    """
    layout = layout_of(stored, weights, as_safetensors=as_safetensors)
    for piece in pieces_of(layout, weights, pruner, reader):
        offset = piece.start
        for values in piece.blocks():
            write_all(target, offset, values.data.cast("B"))
            offset += values.nbytes
    if stored.pickled and layout.names is None:
        from secateurs.checkpoint.pickled import mend_checksums

        mend_checksums(stored.path, [weight.entry for weight in weights], target)
    return layout.written(layout.size)


@dataclass(frozen=True)
class Piece:
    """Contiguous bytes of the new file, block by block; each is valid until the next.

    If they are a pruned weight, ``pruned`` is its name.
    """

    start: int
    blocks: Callable[[], Iterable[Array]]
    pruned: str | None = None


def pieces_of(
    layout: Layout, weights: Sequence[Weight], pruner: BlockPruner, reader: Reader
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
        if weight.entry.strides is not None and layout.names is None:
            blocks = partial(_reordered, weight, pruner, reader)
        yield Piece(layout.starts[name], blocks, name)


def _values(blocks: Iterable[tuple[int, Array]]) -> Iterator[Array]:
    return (values for _, values in blocks)


def _reordered(weight: Weight, pruner: BlockPruner, reader: Reader) -> list[Array]:
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
