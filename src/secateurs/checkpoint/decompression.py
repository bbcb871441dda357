"""From the compressed form back: into memory, or into ordinary files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateurs._tensors.blocks import Array
from secateurs._validation import check_path
from secateurs.checkpoint.compressed_format import (
    KEY,
    Compressed,
    compressed_tensors,
    is_compressed,
    padded,
)
from secateurs.checkpoint.contents import DTYPES, Entry, StoredFile
from secateurs.checkpoint.destination import (
    find_destination,
    open_file,
    open_publication,
    publish,
)
from secateurs.checkpoint.file_blocks import BLOCK, INTEGERS, Advance, Buffers, Reader
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.checkpoint.file_writer import write_all
from secateurs.checkpoint.header import Described, write_header
from secateurs.checkpoint.rewrite import Written
from secateurs.checkpoint.weight_files import find_checkpoint
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.weights_file import AVERAGED_FIRST, read_weights


def load_checkpoint(source: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Load the tensors of a checkpoint, compressed or not; never unpickles code.

    Args:
        source: a file or a folder, as for `secateurs.checkpoint.prune_checkpoint`.
        key: where the weights are in a checkpoint of a training that holds several sets of them.
            Of ``state_dict`` and ``state_dict_ema``, or ``model`` and ``model_ema``, the averaged
            ones are taken by default, as timm does.

    Returns:
        Tensors on the CPU by name, for ``model.load_state_dict``.

    Raises:
        InvalidArgumentError: there is no such checkpoint, or it holds code.
        FailureError: a file is damaged or missing, or is written to meanwhile.

    Example:
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from secateurs.checkpoint import prune_checkpoint
        >>> save_file({"fc.weight": torch.ones(16, 16)}, "dense.safetensors")
        >>> _ = prune_checkpoint("dense.safetensors", "small.safetensors", 0.5, compress=True)
        >>> load_checkpoint("small.safetensors")["fc.weight"].count_nonzero()
        tensor(128)
    """
    found = find_checkpoint(check_path("source", source), key=key, order=AVERAGED_FIRST)
    buffers = Buffers(None, found.identities)
    loaded: dict[str, Tensor] = {}
    for stored in found.files:
        if stored.pickled:
            loaded |= read_weights(stored.path, key=key)
            continue
        with buffers.reader(stored.path) as reader:
            for name, dtype, shape, blocks in _tensors(stored, reader):
                loaded[name] = _filled(stored.path, name, dtype, shape, blocks)
        for alias, name in (stored.metadata or {}).items():
            if name in loaded and alias not in loaded:
                loaded[alias] = loaded[name]
    check_unchanged(found.identities)
    return loaded


def decompress_checkpoint(
    source: str | Path, output: str | Path, *, advance: Advance | None = None
) -> Path:
    """Write a compressed checkpoint as ordinary safetensors, bit for bit the pruned weights.

    Args:
        source: what `secateurs.checkpoint.prune_checkpoint` wrote with ``compress=True``.
        output: a ``.safetensors`` file; a folder if the source is one.
        advance: told of every part that was read, in bytes.

    Returns:
        The folder that the files are in.

    Raises:
        InvalidArgumentError: nothing in it is compressed, or ``output`` cannot be.
        FailureError: a file is damaged, or cannot be written; nothing has changed.
    """
    found = find_checkpoint(check_path("source", source))
    if not any(is_compressed(stored) for stored in found.files):
        raise InvalidArgumentError(f"{found.path} is not compressed: it can be loaded as it is")
    destination = find_destination(found, check_path("output", output))
    buffers = Buffers(advance, found.identities)
    written: list[Written] = []
    with open_publication(found, destination) as publication:
        publication.check_room(sum(_expanded_size(stored) for stored in found.files))
        for number, stored in enumerate(found.files):
            described = _described(stored)
            metadata = {k: v for k, v in (stored.metadata or {}).items() if k != KEY}
            head = write_header(described, metadata or None)
            starts = {tensor[0]: len(head) + tensor[3] for tensor in described}
            with (
                open_file(publication, found, destination, number) as file,
                buffers.reader(stored.path) as reader,
            ):
                write_all(file, 0, memoryview(head))
                for tensor, _, _, blocks in _tensors(stored, reader):
                    place = starts[tensor]
                    for values in blocks:
                        write_all(file, place, values.data.cast("B"))
                        place += values.nbytes
            size = _expanded_size(stored)
            written.append(Written([one[0] for one in described], size, len(head) + size))
        publish(found, destination, publication, written)
    return destination.folder


def _tensors(
    stored: StoredFile, reader: Reader
) -> Iterator[tuple[str, str, tuple[int, ...], Iterator[Array]]]:
    """Each tensor's name, dtype, shape, and its values block by block, in the order of the file."""
    compressed = compressed_tensors(stored)
    parts = {e.name for c in compressed.values() for e in (c.bitmask, c.values)}
    for entry in stored.entries:
        if entry.name not in parts:
            blocks = (values for _, values in reader.blocks(entry.start, entry.stop))
            yield entry.name, entry.dtype, entry.shape, blocks
    for one in compressed.values():
        yield one.name, one.values.dtype, one.shape, _expanded(stored, one, reader)


def _expanded(stored: StoredFile, tensor: Compressed, reader: Reader) -> Iterator[Array]:
    """The values of a compressed tensor, zeros among them, block by block."""
    size = tensor.values.itemsize
    place = tensor.values.start
    for start in range(0, tensor.count, BLOCK):
        count = min(BLOCK, tensor.count - start)
        first = tensor.bitmask.start + start // 8
        bits = reader.read(first, first + -(-count // 8))
        here = np.flatnonzero(np.unpackbits(bits, bitorder="little", count=count))
        end = place + len(here) * size
        if end > tensor.values.stop:
            raise _disagreement(stored, tensor)
        block = np.zeros(count, INTEGERS[size])
        block[here] = reader.read(place, end).view(block.dtype)
        place = end
        yield block
    if padded(place - tensor.values.start) != tensor.values.nbytes:
        raise _disagreement(stored, tensor)


def _disagreement(stored: StoredFile, tensor: Compressed) -> FailureError:
    return FailureError(
        f"cannot read {stored.path}: {tensor.name[:80]!r} has not as many bits as values; it is "
        "damaged, get it again"
    )


def _filled(
    path: Path, name: str, dtype: str, shape: tuple[int, ...], blocks: Iterator[Array]
) -> Tensor:
    if dtype not in DTYPES:
        raise FailureError(f"{name} in {path} has dtype {dtype}, which torch does not have")
    tensor = torch.empty(shape, dtype=DTYPES[dtype])
    flat = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else None
    place = 0
    for values in blocks:
        if flat is not None:
            flat[place : place + values.nbytes] = values.view(np.uint8)
            place += values.nbytes
    return tensor


def _described(stored: StoredFile) -> list[Described]:
    """What the header says of the tensors once none is compressed, in the file's own order."""
    compressed = compressed_tensors(stored)
    of_bitmask = {c.bitmask.name: c for c in compressed.values()}
    values = {c.values.name for c in compressed.values()}
    found: list[Described] = []
    place = 0
    for name in stored.header:
        if name in values:
            continue
        one = of_bitmask.get(name)
        entry = stored.entry(name) if one is None else _dense(one)
        found.append((entry.name, entry.dtype, entry.shape, place, place + entry.nbytes))
        place += entry.nbytes
    return found


def _dense(tensor: Compressed) -> Entry:
    size = tensor.count * tensor.values.itemsize
    return Entry(tensor.name, tensor.values.dtype, tensor.shape, 0, size)


def _expanded_size(stored: StoredFile) -> int:
    described = _described(stored)
    return described[-1][4] if described else 0
