"""The second pass: copy a file, with pruned values instead of the old ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO

import numpy as np

from secateurs._tensors.blocks import Array
from secateurs.checkpoint.block_masks import BlockPruner
from secateurs.checkpoint.contents import Entry, StoredFile
from secateurs.checkpoint.file_blocks import (
    INTEGERS,
    Reader,
    Weight,
    fill,
    strided,
    write_blocks,
)
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
        head: the bytes that it begins with; empty if all is as in the old file.
        starts: the offset of the values of each tensor, by name.
        size: the size of the new file in bytes.
        names: the names of the tensors; None if all is as in the old file.
    """

    head: bytes
    starts: dict[str, int]
    size: int
    names: tuple[str, ...] | None = None

    def written(self, size: int) -> Written:
        """A file with this layout, which takes ``size`` bytes, compressed or not."""
        return Written(self.size - len(self.head), size, self.names)


def layout_of(stored: StoredFile, *, as_safetensors: bool) -> Layout:
    """The layout of a new file: that of the old one, or, if asked for, that of safetensors.

    In safetensors the widest dtypes come first, so that all values are aligned. If several names
    share a tensor, it gets the first name, and the metadata maps the others to that, as
    ``safetensors.torch.save_model`` does.
    """
    if not as_safetensors or not stored.pickled:
        return Layout(b"", {entry.name: entry.start for entry in stored.entries}, stored.size)
    described: list[Described] = []
    size = 0
    for entry in sorted(stored.entries, key=lambda entry: -entry.itemsize):
        described.append((entry.name, entry.dtype, entry.shape, size, size + entry.nbytes))
        size += entry.nbytes
    shared = {alias: entry.name for entry in stored.entries for alias in entry.aliases}
    head = write_header(described, {"format": "pt"} | shared)
    starts = {name: len(head) + start for name, _, _, start, _ in described}
    names = tuple(entry.name for entry in stored.entries)
    return Layout(head, starts, len(head) + size, names)


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
    layout = layout_of(stored, as_safetensors=as_safetensors)
    for piece in pieces_of(stored, layout, weights, pruner, reader):
        write_blocks(target, piece.start, piece.blocks)
    if stored.pickled and not layout.head:
        from secateurs.checkpoint.pickled import mend_checksums

        mend_checksums(stored.path, [weight.entry for weight in weights], target)
    return layout.written(layout.size)


@dataclass(frozen=True)
class Piece:
    """Contiguous bytes of the new file, block by block; each is valid until the next.

    If they are a pruned weight, ``pruned`` is its name.
    """

    start: int
    blocks: Iterable[Array]
    pruned: str | None = None


def pieces_of(
    stored: StoredFile,
    layout: Layout,
    weights: Sequence[Weight],
    pruner: BlockPruner,
    reader: Reader,
) -> Iterator[Piece]:
    """The bytes of the new file; the weights are in the order in which ties are broken."""
    if layout.head:
        yield Piece(0, [np.frombuffer(layout.head, np.uint8)])
        pruned = {weight.entry.name for weight in weights}
        for entry in stored.entries:
            if entry.name not in pruned:
                yield Piece(layout.starts[entry.name], reader.element_blocks(entry))
    else:  # all that is between the weights, too
        offset = 0
        ranges = sorted((weight.entry.start, weight.entry.stop) for weight in weights)
        for start, stop in (*ranges, (stored.size, stored.size)):
            if offset < start:
                yield Piece(offset, reader.blocks(offset, start))
            offset = max(offset, stop)
    for weight in weights:
        entry, blocks = weight.entry, pruner.blocks(weight, reader)
        if entry.strides is not None and not layout.head:
            blocks = _reordered(entry, blocks)
        yield Piece(layout.starts[entry.name], blocks, entry.name)


def _reordered(entry: Entry, blocks: Iterable[Array]) -> Iterator[Array]:
    """The bytes of a pruned weight in the order of the old file."""
    values = np.empty(entry.nbytes, np.uint8)
    fill(values, blocks)
    reordered = np.empty_like(values)
    strided(reordered, entry)[...] = values.view(INTEGERS[entry.itemsize]).reshape(entry.shape)
    yield reordered
