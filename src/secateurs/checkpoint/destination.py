"""The folder and the names of the files that are written, and the writing of all of them."""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from secateurs._io.file_access import refuse_protected
from secateurs._io.regular_files import reading
from secateurs._io.text import listed, quoted
from secateurs.checkpoint.contents import StoredFile
from secateurs.checkpoint.copied_files import CopiedFiles, check_copies, find_copied
from secateurs.checkpoint.file_blocks import write_all
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.checkpoint.journal import abandoned
from secateurs.checkpoint.publication import Publication
from secateurs.checkpoint.rewrite import Written
from secateurs.checkpoint.shard_index import INDEX, is_index, read_index
from secateurs.checkpoint.weight_files import StoredCheckpoint, is_weights
from secateurs.errors import InvalidArgumentError, require
from secateurs.zoo.suffixes import CHECKPOINTS, COMPRESSED, stem_of, suffix_of


@dataclass(frozen=True)
class Destination:
    """The files to be written.

    Attributes:
        folder: the folder that they are written to.
        names: the name of the new file for each file of the source.
        index: the index's name, if there is one.
        copied: the other files of the source that are copied.
        replaced: files of an older checkpoint in the folder that the new index no longer names.
        old: by the name of a new file the older one that it replaces, if that has another name.
        were_links: the files to be replaced that are symbolic links, or one of several hard links.
    """

    folder: Path
    names: tuple[str, ...]
    index: str | None = None
    copied: CopiedFiles = field(default_factory=CopiedFiles)
    replaced: tuple[Path, ...] = ()
    old: Mapping[str, Path] = field(default_factory=dict[str, Path])
    were_links: tuple[str, ...] = ()


def write_files(
    source: StoredCheckpoint,
    destination: Destination,
    write: Callable[[StoredFile, str, FileIO], Written],
    *,
    needed: int,
) -> list[Written]:
    """Write all files of a checkpoint, or none of them.

    ``write`` writes one: it is called with the old file, and the name and the open new one.
    ``needed`` is how many bytes must be free on the disk.

    Raises:
        FailureError: a file of the source has changed since it was read, or a file cannot be
            written; nothing has changed.
    """
    like = source.folder
    with Publication(destination.folder, like=like, index=destination.index) as publication:
        publication.check_room(needed)
        written: list[Written] = []
        for stored, name in zip(source.files, destination.names, strict=True):
            old = destination.old.get(name)
            with publication.file(name, like=stored.path, instead=old) as file:
                written.append(write(stored, name, file))
        for path in destination.copied.files:
            original = (source.folder or Path()) / path
            with publication.file(str(path), like=original) as file:
                with reading(original):
                    opened = original.open("rb", buffering=0)
                with opened:
                    shutil.copyfileobj(opened, file)
        for path, target in destination.copied.links:
            publication.link(str(path), target)
        if destination.index is not None:
            content = _index(source, destination, written)
            with publication.file(destination.index, like=source.index) as file:
                write_all(file, 0, memoryview(content))
        check_unchanged(source.identities)
        publication.commit(destination.names, destination.replaced)
    return written


def _index(source: StoredCheckpoint, destination: Destination, written: Sequence[Written]) -> bytes:
    """The contents of the new index."""
    if source.index is None or source.content is None:
        raise ValueError("there is no index to rewrite")
    old = [file.path.name for file in source.files]
    same = all(one.names is None for one in written)
    if same and list(destination.names) == old:
        return source.index.read_bytes()
    renamed = dict(zip(old, destination.names, strict=True))
    weight_map = {name: renamed[file] for name, file in source.content["weight_map"].items()}
    if not same:
        held = zip(destination.names, written, strict=True)
        weight_map = {name: file for file, one in held for name in one.names or ()}
    content: dict[str, Any] = {**source.content, "weight_map": weight_map}
    if isinstance(content.get("metadata"), dict):
        total = sum(one.nbytes for one in written)
        content["metadata"] = {**content["metadata"]} | ({} if same else {"total_size": total})
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def find_destination(
    source: StoredCheckpoint, output: Path, *, compress: bool = False
) -> Destination:
    """Choose the folder and the names of the new files.

    A folder that exists keeps its old files until the new index, which is written last, names the
    new ones. So the new files get names that no file in the folder has.

    Raises:
        InvalidArgumentError: the output is of another kind than the source, or cannot hold one of
            its tensors, or a folder that holds another checkpoint.
        FailureError: what compresses is not installed, or a file to be replaced is read-only.
    """
    found = _find(source, output, compress)
    names = {*found.names, *found.replaced, *([found.index] if found.index else [])}
    refuse_protected(found.folder / name for name in sorted(map(str, names)))
    return found


def _find(source: StoredCheckpoint, output: Path, compress: bool) -> Destination:
    if compress:
        require("zstandard", "a .safetensors.zst file")
    for file in source.files if compress or suffix_of(output) == ".safetensors" else ():
        if file.torch_only:
            lost = listed(map(quoted, file.torch_only))
            raise InvalidArgumentError(
                f"safetensors has no dtype for {lost} in {file.path}, which would be lost: write a "
                f"{suffix_of(file.path)} file"
            )
    if source.folder is None:
        return _single(source, output, compress)
    if suffix_of(output) in CHECKPOINTS and not output.is_dir():
        raise InvalidArgumentError(
            f"{source.folder} is a folder, and so must be the output: {output} is a file's name"
        )
    if output.exists() and not output.is_dir():
        raise InvalidArgumentError(f"{output} is a file, and the output must be a folder")
    names = tuple(_renamed(f.path.name, compress) for f in source.files)
    index = None if source.index is None else _renamed(source.index.name, compress)
    in_place = output.exists() and output.samefile(source.folder)
    copied = CopiedFiles() if in_place else find_copied(source, source.folder, output)
    if not output.exists():
        return Destination(output, names, index, copied)
    if in_place and names != tuple(f.path.name for f in source.files):
        raise InvalidArgumentError(
            f"{output} would hold one checkpoint in two formats: give another folder"
        )
    replaced, leftover = (), ()
    if index is not None:
        replaced = tuple(read_index(output / index)[1]) if (output / index).is_file() else ()
        leftover = abandoned(output)
    known = {*names, *replaced, *([index] if index else [])}
    _refuse_others(output, {*known, *leftover}, source, in_place)
    replaces = any((output / name).exists() for name in known - set(leftover))
    check_copies(copied, source.folder, output, replaces=replaces)
    if index is None:
        return Destination(output, names, None, copied, were_links=_linked(output, names))
    fresh = tuple(_fresh(output, name, leftover) for name in names)
    old_files = {_plain(name): output / name for name in replaced}
    old = {name: old_files[_plain(name)] for name in fresh if _plain(name) in old_files}
    removed = tuple(output / name for name in replaced if name not in fresh)
    links = _linked(output, (*replaced, index))
    return Destination(output, fresh, index, copied, removed, old, links)


def _linked(folder: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that are symbolic links, or one of several hard links."""
    paths = [folder / name for name in names if os.path.lexists(folder / name)]
    return tuple(p.name for p in paths if p.is_symlink() or p.lstat().st_nlink > 1)


def _single(source: StoredCheckpoint, output: Path, compress: bool) -> Destination:
    stored = source.files[0]
    if output.is_dir():
        output = output / _renamed(stored.path.name, compress)
    suffix = suffix_of(output)
    stem = output.with_name(stem_of(output.name))
    if compress and suffix != COMPRESSED:
        raise InvalidArgumentError(
            f"a compressed checkpoint is a {COMPRESSED} file, and {output} is none: write "
            f"{stem}{COMPRESSED}"
        )
    if not compress and suffix == COMPRESSED:
        raise InvalidArgumentError(
            f"{output} is the name of a compressed file: ask for compression too, or write "
            f"{stem}.safetensors"
        )
    if suffix not in (*CHECKPOINTS, suffix_of(stored.path)):
        raise InvalidArgumentError(
            f"the output {output} must be a {', '.join(CHECKPOINTS)} file, as the input is a file"
        )
    if suffix not in (".safetensors", COMPRESSED) and suffix in CHECKPOINTS and not stored.pickled:
        raise InvalidArgumentError(
            f"{stored.path.name} is safetensors, and so must be the output: write "
            f"{stem}.safetensors"
        )
    links = _linked(output.parent, (output.name,))
    return Destination(output.parent, (output.name,), were_links=links)


def _renamed(name: str, compress: bool) -> str:
    """The name of a file in its new format, as Hugging Face names such files."""
    if is_index(name):
        return _renamed(name[: -len(INDEX)], compress).removesuffix(".zst") + INDEX
    suffix, stem = suffix_of(name), stem_of(name)
    if not compress:
        return f"{stem}.safetensors" if suffix == COMPRESSED else name
    return (stem if "safetensors" in suffix else stem.removeprefix("pytorch_")) + COMPRESSED


def _refuse_others(folder: Path, known: set[str], source: StoredCheckpoint, in_place: bool) -> None:
    """Refuse a folder with other weights, which a loader may take for the result."""
    expected = known | ({str(path) for path in source.left_out} if in_place else set[str]())
    for path in sorted(folder.iterdir()):
        if is_weights(path.name) and path.name not in expected:
            raise InvalidArgumentError(
                f"{folder} holds other weights ({path.name}): give a new folder for the output"
            )


def _fresh(folder: Path, name: str, leftover: Collection[str]) -> str:
    """The name, or a similar one, that no file has except leftovers, which will be removed."""
    stem, suffix = stem_of(_plain(name)), name[len(stem_of(name)) :]
    number = 0
    while os.path.lexists(folder / name) and name not in leftover:
        number += 1
        name = f"{stem}.r{number}{suffix}"
    return name


def _plain(name: str) -> str:
    """The name of a shard without the number that `_fresh` adds and without ``.zst``."""
    stem = stem_of(name)
    return re.sub(r"\.r\d+$", "", stem) + name[len(stem) :].removesuffix(".zst")
