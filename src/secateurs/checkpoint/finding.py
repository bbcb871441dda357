"""From a path to the files of a checkpoint: one file, or a folder as Hugging Face writes it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateurs._files import read_regular
from secateurs.checkpoint.header import MalformedError, read_header, read_json
from secateurs.checkpoint.identity import Identity, check_unchanged, identify
from secateurs.checkpoint.stored import StoredFile
from secateurs.errors import FailureError, InvalidArgumentError

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLED)
INDEX = ".index.json"
# Weights in any form: those that are not pruned must not be taken for those that are.
_WEIGHTS = (*SUFFIXES, ".h5", ".msgpack", ".onnx", ".gguf", ".ggml", ".tflite", ".npz", ".pkl")
_LONGEST_INDEX = 100_000_000


@dataclass(frozen=True)
class Source:
    """A checkpoint as it lies on disk.

    Attributes:
        path: what was asked for.
        files: the files with tensors, in the order of their names.
        index: the file that says which tensor lies in which file, if there is one.
        content: what the index holds.
        folder: the folder, if the checkpoint is one.
        others: further files of the folder, by their paths in it.
        left_out: further weights in it, which are not part of the checkpoint.
        state: which file the index was, and in what state, when it was read.
    """

    path: Path
    files: tuple[StoredFile, ...]
    index: Path | None = None
    content: dict[str, Any] | None = None
    folder: Path | None = None
    others: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()
    state: Identity | None = None

    @property
    def identities(self) -> dict[Path, Identity]:
        """Which files were read, and in what state."""
        found = {file.path: file.identity for file in self.files}
        found |= {} if self.index is None else {self.index: self.state}
        return {path: state for path, state in found.items() if state is not None}


def find_checkpoint(path: Path) -> Source:
    """Find and check the files of a checkpoint, without reading values.

    Args:
        path: a ``.safetensors`` file, what ``torch.save`` wrote, a folder, or the
            ``.index.json`` in one.

    Raises:
        InvalidArgumentError: there is no such file, or no checkpoint in the folder.
        FailureError: a file is damaged, or one that the index names is missing.
    """
    if path.is_dir():
        return _in_folder(path, _main_file(path))
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no checkpoint {path}; give a {', '.join(SUFFIXES)} file, or a folder"
        )
    if path.name.endswith(INDEX):
        return _in_folder(path.parent, path)
    return Source(path, (read_file(path),))


def read_file(path: Path) -> StoredFile:
    """Read what one file holds, by its suffix.

    Raises:
        InvalidArgumentError: the suffix is of no format that is known here, or the file holds code.
        FailureError: it is damaged, or changes meanwhile.
    """
    identity = identify(path)
    try:
        return replace(_read_file(path), identity=identity)
    finally:  # whatever was read, or wrong
        check_unchanged({path: identity})


def _read_file(path: Path) -> StoredFile:
    if path.suffix == ".safetensors":
        return read_header(path)
    if path.suffix in PICKLED:
        from secateurs.checkpoint.pickled import read_pickled

        return read_pickled(path)
    raise InvalidArgumentError(f"{path} is no checkpoint: give a {', '.join(SUFFIXES)} file")


def read_index(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read an index: all it holds, and the names of the files, in order.

    Raises:
        FailureError: it is damaged, or names a file outside its folder.
    """
    try:
        if path.stat().st_size > _LONGEST_INDEX:
            raise MalformedError("it is too long for an index")
        content = read_json(read_regular(path))
    except (MalformedError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise FailureError(f"cannot read {path} as an index: {text}; get it again") from error
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FailureError(f"cannot read {path} as an index: it has no weight_map; get it again")
    for name, file in places.items():
        if not isinstance(file, str) or not _is_plain(file):
            raise FailureError(
                f"{path} says that {name[:80]!r} lies in {str(file)[:80]!r}, which is no file name "
                "in its folder; get it again"
            )
    return content, sorted(set(places.values()))


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights in some form."""
    return name.endswith(INDEX) or Path(name).suffix in _WEIGHTS


def is_shard_name(name: str) -> bool:
    """Whether this can be the name of a file of a checkpoint, in the folder of the index."""
    return _is_plain(name)


def _is_plain(name: str) -> bool:
    known = Path(name).suffix in SUFFIXES
    return known and not set(name) & set('/\\\0:"') and name.isprintable() and name[0] != "."


def _main_file(folder: Path) -> Path:
    """The index, or the one file, that a loader would take."""
    for ending in (".safetensors", *PICKLED):
        indexes = sorted(folder.glob(f"*{ending}{INDEX}"))
        files = [p for p in sorted(folder.glob(f"*{ending}")) if p.is_file()]
        for found, usual in ((indexes, f"model{ending}{INDEX}"), (files, f"model{ending}")):
            names = {usual, f"pytorch_{usual}"}
            chosen = [p for p in found if p.name in names] or found
            if len(chosen) > 1:
                raise InvalidArgumentError(
                    f"{folder} holds several checkpoints ({', '.join(p.name for p in chosen[:4])}"
                    f"{', ...' if len(chosen) > 4 else ''}) and no index: give one of the files"
                )
            if chosen:
                return chosen[0]
    raise InvalidArgumentError(f"{folder} holds no checkpoint: no {', '.join(SUFFIXES)} file")


def _in_folder(folder: Path, main: Path) -> Source:
    if not main.name.endswith(INDEX):
        others, left_out = _others(folder, {main.name})
        return Source(folder, (read_file(main),), None, None, folder, others, left_out)
    state = identify(main)
    content, names = read_index(main)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FailureError(
            f"{main} names {missing[0]}, which is not in its folder"
            f"{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}: get the missing files"
        )
    files = tuple(read_file(folder / name) for name in names)
    _check_agreement(main, content["weight_map"], files)
    others, left_out = _others(folder, {main.name, *names})
    return Source(folder, files, main, content, folder, others, left_out, state)


def _check_agreement(index: Path, places: dict[str, str], files: Sequence[StoredFile]) -> None:
    held: dict[str, str] = {}
    for file in files:
        for name in (name for entry in file.entries for name in entry.names):
            if name in held:
                raise FailureError(
                    f"tensor {name[:80]!r} lies in both {held[name]} and {file.path.name}: the "
                    "folder holds parts of two checkpoints, get it again"
                )
            held[name] = file.path.name
    for name, file in places.items():
        if held.get(name) != file and not name.startswith("__"):
            raise FailureError(
                f"{index} says that {name[:80]!r} lies in {file}, and it does not: get both again"
            )


def _others(folder: Path, taken: set[str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """What else is in the folder: files to take along, and weights to leave behind."""
    others: list[Path] = []
    left_out: list[Path] = []
    for where, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(names):
            path = (Path(where) / name).relative_to(folder)
            if str(path) in taken or name.endswith(".tmp") or not (folder / path).is_file():
                continue
            (left_out if is_weights(name) else others).append(path)
    return tuple(others), tuple(left_out)
