"""Where the pruned files go, and under which names."""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from secateurs.checkpoint.copied_files import NOTHING, Companions, check_places, companions
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.checkpoint.file_writer import write_all
from secateurs.checkpoint.journal import abandoned
from secateurs.checkpoint.publication import Publication
from secateurs.checkpoint.rewrite import Written
from secateurs.checkpoint.shard_index import INDEX, is_index, read_index
from secateurs.checkpoint.weight_files import StoredCheckpoint, is_weights
from secateurs.errors import FailureError, InvalidArgumentError, require
from secateurs.zoo.suffixes import CHECKPOINTS, COMPRESSED, stem_of, suffix_of


@dataclass(frozen=True)
class Destination:
    """The files to be written.

    Attributes:
        folder: where they go.
        names: one for each file of the source.
        index: the index's name, if there is one.
        copied: what goes along.
        replaced: files of an older checkpoint in the folder, that the new index no longer names.
        instead: for each of the names, the file that it replaces, if there is one.
        were_links: what the result replaces and is a link, or one of several hard links.
    """

    folder: Path
    names: tuple[str, ...]
    index: str | None = None
    copied: Companions = NOTHING
    replaced: tuple[Path, ...] = ()
    instead: tuple[Path | None, ...] = ()
    were_links: tuple[str, ...] = ()


def open_publication(source: StoredCheckpoint, destination: Destination) -> Publication:
    """Where the files are written."""
    return Publication(destination.folder, like=source.folder, index=destination.index)


def open_file(
    publication: Publication, source: StoredCheckpoint, destination: Destination, number: int
) -> AbstractContextManager[FileIO]:
    """Open the new file for the file of this number of the source."""
    name, stored = destination.names[number], source.files[number]
    instead = destination.instead[number] if destination.instead else None
    return publication.file(name, like=stored.path, instead=instead)


def publish(
    source: StoredCheckpoint,
    destination: Destination,
    publication: Publication,
    written: Sequence[Written],
) -> None:
    """Copy what else the folder holds, write the index, and give all files their names.

    Raises:
        FailureError: a file of the source is not the one any more that was read, or a file cannot
            be written; nothing has changed.
    """
    for path in destination.copied.files:
        original = (source.folder or Path()) / path
        with publication.file(str(path), like=original) as file, _opened(original) as opened:
            shutil.copyfileobj(opened, file)
    for path, target in destination.copied.links:
        publication.link(str(path), target)
    if destination.index is not None:
        content = _index(source, destination, written)
        with publication.file(destination.index, like=source.index) as file:
            write_all(file, 0, memoryview(content))
    check_unchanged(source.identities)
    publication.commit(destination.names, destination.replaced)


def _opened(path: Path) -> FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error


def _index(source: StoredCheckpoint, destination: Destination, written: Sequence[Written]) -> bytes:
    """What the new index says."""
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
    """Decide where the pruned files go.

    A folder that exists keeps its old files until the new index, written last, names the new ones:
    new files take names that are not taken.

    Args:
        source: the checkpoint.
        output: a file if the source is one, else a folder.
        compress: whether the result is compressed.

    Raises:
        InvalidArgumentError: the output is of another kind than the source, or a folder that holds
            another checkpoint.
        FailureError: what compresses is not installed.
    """
    if compress:
        require("zstandard", "a .safetensors.zst file")
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
    copied = NOTHING if in_place else companions(source, source.folder, output)
    if not output.exists():
        return Destination(output, names, index, copied)
    if in_place and names != tuple(f.path.name for f in source.files):
        raise InvalidArgumentError(
            f"{output} would hold one checkpoint in two formats: give another folder"
        )
    replaced = _replaced(output, index) if index is not None else ()
    left = abandoned(output) if index is not None else ()
    ours = {*names, *replaced, *([index] if index else [])}
    _refuse_others(output, {*ours, *left}, source, in_place)
    replaces = any((output / name).exists() for name in ours - set(left))
    check_places(copied, source.folder, output, replaces=replaces)
    return _beside_older(output, names, index, copied, replaced, left)


def _beside_older(
    folder: Path,
    names: tuple[str, ...],
    index: str | None,
    copied: Companions,
    replaced: tuple[str, ...],
    left: tuple[str, ...],
) -> Destination:
    """Names in a folder that exists: new ones for shards, so that the old ones stay for now."""
    if index is None:
        return Destination(folder, names, None, copied, were_links=_linked(folder, names))
    olds = {_plain(name): folder / name for name in replaced}
    fresh = tuple(_fresh(folder, name, left) for name in names)
    gone = tuple(folder / name for name in replaced if name not in fresh)
    instead = tuple(olds.get(_plain(name)) for name in names)
    links = _linked(folder, (*replaced, index))
    return Destination(folder, fresh, index, copied, gone, instead, links)


def _linked(folder: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Those that are links, or one of several names of a file."""
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
            f"what is compressed is a {COMPRESSED} file, and {output} is none: write "
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
    """The name that a file has in its new format: that of Hugging Face, where it was of pickles."""
    if is_index(name):
        return _renamed(name[: -len(INDEX)], compress).removesuffix(".zst") + INDEX
    suffix, stem = suffix_of(name), stem_of(name)
    if not compress:
        return f"{stem}.safetensors" if suffix == COMPRESSED else name
    return (stem if "safetensors" in suffix else stem.removeprefix("pytorch_")) + COMPRESSED


def _replaced(folder: Path, index: str) -> tuple[str, ...]:
    """The files that the folder's index names now."""
    return tuple(read_index(folder / index)[1]) if (folder / index).is_file() else ()


def _refuse_others(folder: Path, ours: set[str], source: StoredCheckpoint, in_place: bool) -> None:
    """A loader may take other weights in the folder for the result."""
    known = ours | ({str(path) for path in source.left_out} if in_place else set[str]())
    for path in sorted(folder.iterdir()):
        if is_weights(path.name) and path.name not in known:
            raise InvalidArgumentError(
                f"{folder} holds other weights ({path.name}): give a new folder for the output"
            )


def _fresh(folder: Path, name: str, left: Collection[str]) -> str:
    """The name, or one beside it that is not taken, or only by what will be removed."""
    stem, suffix = stem_of(_plain(name)), name[len(stem_of(name)) :]
    number = 0
    while os.path.lexists(folder / name) and name not in left:
        number += 1
        name = f"{stem}.r{number}{suffix}"
    return name


def _plain(name: str) -> str:
    """The name that a shard has where none is in its way, and that it has decompressed."""
    stem = stem_of(name)
    return re.sub(r"\.r\d+$", "", stem) + name[len(stem) :].removesuffix(".zst")
