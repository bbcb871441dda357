"""Write a pruned file as one zstd stream of safetensors, which any zstd tool can open."""

import os
from collections.abc import Callable, Sequence
from io import FileIO
from typing import BinaryIO, cast

import zstandard

from secateurs._tensors.blocks import Array
from secateurs.checkpoint.block_masks import Pruner
from secateurs.checkpoint.contents import StoredFile
from secateurs.checkpoint.file_blocks import Reader, Weight
from secateurs.checkpoint.file_writer import write_all
from secateurs.checkpoint.rewrite import Written, pieces_of, safetensors_layout, same_layout

LEVEL = 1
"""Of zstd: higher ones take two to ten times as long for files that are a few percent smaller."""


def write_compressed(
    stored: StoredFile, weights: Sequence[Weight], pruner: Pruner, reader: Reader, target: FileIO
) -> Written:
    """Write the safetensors that pruning makes of any file, compressed.

    Args:
        stored: the old file.
        weights: what is pruned in it, in the order in which ties are broken.
        pruner: prunes it.
        reader: reads the old file.
        target: the new file.
    """
    layout = (safetensors_layout if stored.pickled else same_layout)(stored, weights)
    go_back = _go_through(layout.starts, weights, pruner, reader)
    stream = Compressor(target, layout.size)
    pieces = pieces_of(layout, weights, pruner, reader)
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if piece.pruned in go_back:
            go_back[piece.pruned]()
        for values in piece.blocks():
            stream.write(values)
    names = [entry.name for entry in stored.entries] if stored.pickled else None
    return Written(names, layout.size - len(layout.head), stream.finish())


def _go_through(
    starts: dict[str, int], weights: Sequence[Weight], pruner: Pruner, reader: Reader
) -> dict[str, Callable[[], None]]:
    """Break ties in the order of the weights, where the new file has another order.

    Returns:
        What to call before pruning a weight for the file; empty where the order is the same.
    """
    new_order = [starts[weight.entry.name] for weight in weights]
    if new_order == sorted(new_order):
        return {}
    go_back: dict[str, Callable[[], None]] = {}
    for weight in weights:
        go_back[weight.entry.name] = pruner.remember(weight)
        for _ in pruner.blocks(weight, reader):
            pass
    return go_back


class Compressor:
    """Compresses what is written, on all cores that this process may use.

    The bytes of the result are the same for any number of cores.

    Args:
        file: where the result goes, from its beginning.
        size: how many bytes will be written; zstd tools show it, and readers rely on it.
    """

    def __init__(self, file: FileIO, size: int):
        compressor = zstandard.ZstdCompressor(
            level=LEVEL, threads=_cores(), write_checksum=True, write_content_size=True
        )
        self._file = _Appended(file)
        # Of a file, it needs no more than write.
        target = cast(BinaryIO, self._file)
        self._stream = compressor.stream_writer(target, size=size, closefd=False)

    def write(self, values: Array) -> None:
        """Add the bytes of an array, which may be used again when this returns."""
        if values.nbytes:
            self._stream.write(values.data.cast("B"))

    def finish(self) -> int:
        """Write what is left; returns the bytes of the result."""
        self._stream.flush(zstandard.FLUSH_FRAME)
        return self._file.size


class _Appended:
    """A file that is written from its beginning to its end, as zstandard wants it."""

    def __init__(self, file: FileIO):
        self._file, self.size = file, 0

    def write(self, data: bytes) -> int:
        write_all(self._file, self.size, memoryview(data))
        self.size += len(data)
        return len(data)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
