"""Write a pruned file as one zstd stream of safetensors, which any zstd tool can open."""

from collections import Counter
from collections.abc import Callable, Sequence
from io import FileIO

import zstandard

from secateurs._tensors.blocks import Array, cores
from secateurs.checkpoint.block_masks import BlockPruner
from secateurs.checkpoint.contents import StoredFile
from secateurs.checkpoint.file_blocks import Reader, Weight, write_all
from secateurs.checkpoint.rewrite import Written, layout_of, pieces_of


def write_compressed(
    stored: StoredFile,
    weights: Sequence[Weight],
    pruner: BlockPruner,
    reader: Reader,
    target: FileIO,
) -> Written:
    """Write a file with its weights pruned, as safetensors, compressed.

    The arguments are those of `secateurs.checkpoint.rewrite.write_file`.
    """
    layout = layout_of(stored, as_safetensors=True)
    go_back = _break_ties(layout.starts, weights, pruner, reader)
    sizes = Counter[int]()
    for entry in stored.entries:
        sizes[entry.itemsize] += entry.nbytes
    stream = Compressor(target, layout.size, itemsize=max(sizes, key=sizes.__getitem__, default=1))
    pieces = pieces_of(stored, layout, weights, pruner, reader)
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if piece.pruned in go_back:
            go_back[piece.pruned]()
        for values in piece.blocks:
            stream.write(values)
    return layout.written(stream.finish())


def _break_ties(
    starts: dict[str, int], weights: Sequence[Weight], pruner: BlockPruner, reader: Reader
) -> dict[str, Callable[[], None]]:
    """Break ties in the order of the weights, if their order in the new file is another.

    Returns:
        For each weight a function to call before it is pruned again, for the new file; empty if the
        order is the same.
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
    """Compresses bytes into a file, on all cores that this process may use.

    The bytes of the result are the same for any number of cores. The level is 1: others give
    slightly smaller files in 1.4 to 5 times the time, and negative ones give much larger files,
    since they store the values that were not pruned without entropy coding.

    Args:
        file: the file, empty.
        size: the number of bytes that will be compressed; zstd tools and readers use it.
        itemsize: the size in bytes of most elements. Pruned elements of four bytes or more are
            found by matches of four bytes, and a table of 256 entries, which stays in the fastest
            cache, is enough for them: the result is smaller than by level 1 alone.
    """

    def __init__(self, file: FileIO, size: int, *, itemsize: int):
        compressor = zstandard.ZstdCompressor(compression_params=_parameters(itemsize))
        self._file, self._size = file, 0
        self._stream = compressor.compressobj(size=size)

    def write(self, values: Array) -> None:
        """Add the bytes of an array, which may be used again when this returns."""
        if values.nbytes:
            self._append(self._stream.compress(values.data.cast("B")))

    def finish(self) -> int:
        """Write the rest; returns the size of the result in bytes."""
        self._append(self._stream.flush())
        return self._size

    def _append(self, data: bytes) -> None:
        write_all(self._file, self._size, memoryview(data))
        self._size += len(data)


def compressed_size(content: bytes, *, itemsize: int = 4) -> int:
    """How many bytes `Compressor` makes of these."""
    compressor = zstandard.ZstdCompressor(compression_params=_parameters(itemsize))
    return len(compressor.compress(content))


def _parameters(itemsize: int) -> zstandard.ZstdCompressionParameters:
    own = {"min_match": 4, "hash_log": 8} if itemsize >= 4 else {}
    return zstandard.ZstdCompressionParameters.from_level(
        1, threads=cores(), write_checksum=True, write_content_size=True, **own
    )
