"""Load checkpoints into memory, and decompress compressed ones into ordinary files."""

from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateurs._tensors.blocks import Array
from secateurs._validation import check_path
from secateurs.checkpoint.contents import DTYPES, Entry, StoredFile
from secateurs.checkpoint.destination import find_destination, write_files
from secateurs.checkpoint.file_blocks import BLOCK, Advance, Buffers, write_blocks
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.checkpoint.rewrite import Written
from secateurs.checkpoint.weight_files import find_checkpoint
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.weights_file import AVERAGED_FIRST, read_weights


def load_checkpoint(source: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Load the tensors of a checkpoint, compressed or not; never unpickles code.

    Args:
        source: a file or a folder, as for `secateurs.checkpoint.prune_checkpoint`, or what it wrote
            with ``compress=True``.
        key: which weights to load from a training checkpoint that holds several sets of them. Of
            ``state_dict`` and ``state_dict_ema``, or ``model`` and ``model_ema``, the averaged ones
            are taken by default, as timm does.

    Returns:
        Tensors on the CPU by name, for ``model.load_state_dict``.

    Raises:
        InvalidArgumentError: there is no such checkpoint, or it holds code.
        FailureError: a file is damaged or missing, or changes while it is read.

    Example:
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from secateurs.checkpoint import prune_checkpoint
        >>> save_file({"fc.weight": torch.ones(16, 16)}, "dense.safetensors")
        >>> _ = prune_checkpoint("dense.safetensors", "small.safetensors.zst", 0.5, compress=True)
        >>> load_checkpoint("small.safetensors.zst")["fc.weight"].count_nonzero()
        tensor(128)
    """
    found = find_checkpoint(check_path("source", source), key=key, order=AVERAGED_FIRST)
    buffers = Buffers(None, found.identities)
    loaded: dict[str, Tensor] = {}
    for stored in found.files:
        if stored.pickled:
            loaded |= read_weights(stored.path, key=key)
            continue
        loaded |= _read(stored, buffers)
        for entry in stored.entries:
            for alias in entry.aliases:
                loaded.setdefault(alias, loaded[entry.name])
    check_unchanged(found.identities)
    return loaded


def decompress_checkpoint(
    source: str | Path, output: str | Path, *, advance: Advance | None = None
) -> Path:
    """Write a compressed checkpoint as ordinary safetensors, as the zstd tool does with each file.

    Args:
        source: what `secateurs.checkpoint.prune_checkpoint` wrote with ``compress=True``.
        output: a ``.safetensors`` file; a folder if the source is one.
        advance: called with the number of bytes after each read.

    Returns:
        The folder of the new files.

    Raises:
        InvalidArgumentError: no file is compressed, or ``output`` does not fit.
        FailureError: a file is damaged, or cannot be written; nothing has changed.
    """
    found = find_checkpoint(check_path("source", source))
    if not any(stored.compressed for stored in found.files):
        raise InvalidArgumentError(f"{found.path} is not compressed: it can be loaded as it is")
    destination = find_destination(found, check_path("output", output))
    buffers = Buffers(advance, found.identities)

    def write_one(stored: StoredFile, _: str, file: FileIO) -> Written:
        write_blocks(file, 0, _blocks(stored, buffers, advance))
        return Written(stored.size, stored.size)

    write_files(found, destination, write_one, needed=sum(file.size for file in found.files))
    return destination.folder


def _blocks(stored: StoredFile, buffers: Buffers, advance: Advance | None) -> Iterator[Array]:
    """The bytes of a file, decompressed, in blocks; each is valid until the next."""
    if not stored.compressed:
        with buffers.reader(stored.path) as reader:
            yield from reader.blocks(0, stored.size)
        return
    from secateurs.checkpoint.zstd_frame import open_frame

    block = np.empty(8 * BLOCK, np.uint8)
    with open_frame(stored.path, stored.identity, advance) as frame:
        for start in range(0, stored.size, len(block)):
            part = block[: stored.size - start]
            frame.readinto(part.data)
            yield part
        frame.check_end()


def _read(stored: StoredFile, buffers: Buffers) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file, compressed or not."""
    if not stored.compressed:
        with buffers.reader(stored.path) as reader:
            return {e.name: _filled(stored.path, e, reader.whole) for e in stored.entries}
    from secateurs.checkpoint.zstd_frame import open_frame

    with open_frame(stored.path, stored.identity) as frame:
        frame.take(stored.entries[0].start if stored.entries else stored.size)

        def fill(_: Entry, target: Array) -> None:
            frame.readinto(target.data)

        tensors = {entry.name: _filled(stored.path, entry, fill) for entry in stored.entries}
        frame.check_end()
    return tensors


def _filled(path: Path, entry: Entry, fill: Callable[[Entry, Array], None]) -> Tensor:
    """A new tensor, whose bytes ``fill`` writes."""
    if entry.dtype not in DTYPES:
        raise FailureError(
            f"{entry.name} in {path} has dtype {entry.dtype}, which torch does not have"
        )
    try:
        tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="cpu")
    except RuntimeError as error:
        raise FailureError(
            f"cannot load {path}: {entry.name} needs {entry.nbytes:,} bytes of memory, which "
            "cannot be had"
        ) from error
    if tensor.numel():
        fill(entry, tensor.reshape(-1).view(torch.uint8).numpy())
    return tensor
