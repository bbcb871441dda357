"""Find the files of a checkpoint: a single file, or a folder as Hugging Face writes it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateurs._io.regular_files import reading
from secateurs.checkpoint.contents import Entry, StoredFile
from secateurs.checkpoint.file_identity import Identity, check_unchanged, identify
from secateurs.checkpoint.header import read_header
from secateurs.checkpoint.main_file import main_file
from secateurs.checkpoint.shard_index import check_agreement, is_index, read_index
from secateurs.errors import Argument, FailureError, InvalidArgumentError, require
from secateurs.zoo.archive import is_archive
from secateurs.zoo.suffixes import (
    CHECKPOINTS,
    COMPRESSED,
    is_named_as_weights,
    is_safetensors,
    suffix_of,
)

# Weights in other formats, which are not copied: a loader could take them for the pruned ones.
_OTHER_WEIGHTS = (
    ".h5", ".msgpack", ".onnx", ".gguf", ".ggml", ".tflite", ".npz", ".pkl", ".distcp",
)  # fmt: skip
_BITMASKS = "secateurs.compressed"  # a key in the metadata of an older compressed format


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint on the disk.

    Attributes:
        path: the path that was given.
        files: the files with tensors, in the order of their names.
        index: the path of the index, if there is one.
        content: the contents of the index.
        folder: the folder, if the checkpoint is one.
        others: further files of the folder, by their paths in it.
        left_out: further weights in the folder that do not belong to the checkpoint, and the states
            of optimizers and the like.
        tied: tensors that the index names and no file holds, since models tie them to another.
        state: the identity of the index when it was read.
    """

    path: Path
    files: tuple[StoredFile, ...]
    index: Path | None = None
    content: dict[str, Any] | None = None
    folder: Path | None = None
    others: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()
    tied: tuple[str, ...] = ()
    state: Identity | None = None

    @property
    def entries(self) -> list[Entry]:
        """The tensors of all files, in the order in which ties are broken."""
        return [entry for file in self.files for entry in file.entries]

    @property
    def identities(self) -> dict[Path, Identity]:
        """The identities that the files had when they were read."""
        found = {file.path: file.identity for file in self.files}
        found |= {} if self.index is None else {self.index: self.state}
        return {path: state for path, state in found.items() if state is not None}


def find_checkpoint(
    path: Path, *, key: str | None = None, order: Sequence[str] = ()
) -> StoredCheckpoint:
    """Find and check the files of a checkpoint, without reading values.

    Args:
        path: a ``.safetensors`` or ``.safetensors.zst`` file, what ``torch.save`` wrote, a folder,
            or the ``.index.json`` in one.
        key: the name of the weights in a file of ``torch.save`` that holds several sets of them.
        order: names of sets of weights; if there are several sets, the first of these is taken.

    Raises:
        InvalidArgumentError: there is no such file, no checkpoint in the folder, or several.
        FailureError: a file is damaged, or one that the index names is missing.
    """
    if path.is_dir():
        with reading(path):
            main = main_file(path)
        return _in_folder(path, main, key, order)
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no checkpoint {path}; give a {', '.join(CHECKPOINTS)} file, or a folder"
        )
    if is_index(path.name):
        return _in_folder(path.parent, path, key, order)
    return StoredCheckpoint(path, (read_file(path, key=key, order=order),))


def read_file(path: Path, *, key: str | None = None, order: Sequence[str] = ()) -> StoredFile:
    """Read the names, shapes and offsets of the tensors in one file.

    It is safetensors by its suffix or its first bytes, otherwise a file of ``torch.save``, and then
    ``key`` and ``order`` are as for `find_checkpoint`.

    Raises:
        InvalidArgumentError: it holds code, no weights, or several sets of them.
        FailureError: it is damaged, or changes while it is read.
    """
    identity = identify(path)
    try:
        return replace(_read_file(path, key, order), identity=identity)
    finally:  # a change is reported even if the file is wrong, since it may be the cause
        check_unchanged({path: identity})


def _read_file(path: Path, key: str | None, order: Sequence[str]) -> StoredFile:
    compressed = suffix_of(path) == COMPRESSED
    with reading(path):
        pickled = not compressed and not is_safetensors(path)
    if pickled and suffix_of(path) not in CHECKPOINTS and not is_archive(path):
        raise InvalidArgumentError(f"{path} is no checkpoint: give a {', '.join(CHECKPOINTS)} file")
    if pickled:
        from secateurs.checkpoint.pickled import read_pickled

        return read_pickled(path, key=key, order=order)
    if key is not None:
        raise InvalidArgumentError(
            f"{path} is safetensors, which holds one set of weights: leave ",
            Argument("key", key),
            " out",
        )
    read = read_header
    if compressed:
        require("zstandard", "a .safetensors.zst file")
        from secateurs.checkpoint.zstd_frame import read_compressed

        read = read_compressed
    stored = read(path)
    if _BITMASKS in (stored.metadata or {}):
        raise InvalidArgumentError(
            f"{path} holds bitmasks and values, which secateurs wrote before it wrote zstd: write "
            "it as an ordinary file with the version that made it"
        )
    return stored


def is_weights(name: str) -> bool:
    """Whether, by its name, a file holds weights in some format, or the state of a training."""
    return is_index(name) or is_named_as_weights(name) or suffix_of(name) in _OTHER_WEIGHTS


def _in_folder(folder: Path, main: Path, key: str | None, order: Sequence[str]) -> StoredCheckpoint:
    if not is_index(main.name):
        others, left_out = _others(folder, {main.name})
        files = (read_file(main, key=key, order=order),)
        return StoredCheckpoint(folder, files, None, None, folder, others, left_out)
    state = identify(main)
    content, names = read_index(main)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FailureError(
            f"{main} names {missing[0]}, which is not in its folder"
            f"{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}: get the missing files"
        )
    files = tuple(read_file(folder / name, key=key, order=order) for name in names)
    tied = check_agreement(main, content["weight_map"], files)
    others, left_out = _others(folder, {main.name, *names})
    return StoredCheckpoint(folder, files, main, content, folder, others, left_out, tied, state)


def _others(folder: Path, taken: set[str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The other files of the folder: those that are copied, and weights, which are not."""
    found = [p for p in paths_in(folder) if str(p) not in taken and (folder / p).is_file()]
    others = tuple(path for path in found if not is_weights(path.name))
    return others, tuple(path for path in found if is_weights(path.name))


def paths_in(folder: Path) -> Iterator[Path]:
    """The files, links and folders inside a folder, but for hidden folders and temporary files."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*folders, *sorted(names)):
            if not name.endswith(".tmp"):
                yield (Path(parent) / name).relative_to(folder)
