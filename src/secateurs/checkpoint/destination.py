"""Where the pruned files go, and under which names."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.checkpoint.finding import Source, is_weights
from secateurs.checkpoint.index import INDEX, is_index, read_index
from secateurs.checkpoint.publishing import Publication, write_all
from secateurs.checkpoint.rewriting import Written
from secateurs.errors import InvalidArgumentError
from secateurs.zoo.suffixes import SUFFIXES, stem_of, suffix_of


@dataclass(frozen=True)
class Destination:
    """The files to be written.

    Attributes:
        folder: where they go.
        names: one for each file of the source.
        index: the index's name, if there is one.
        others: the source's further files, by their paths in the folder.
        replaced: files of an older checkpoint in the folder, that the new index no longer names.
    """

    folder: Path
    names: tuple[str, ...]
    index: str | None = None
    others: tuple[Path, ...] = ()
    replaced: tuple[Path, ...] = ()


def publish(
    source: Source, destination: Destination, publication: Publication, written: Sequence[Written]
) -> None:
    """Copy what else the folder holds, write the index, and give all files their names."""
    for path in destination.others:
        original = (source.folder or Path()) / path
        with publication.file(str(path)) as file, original.open("rb") as opened:
            shutil.copyfileobj(opened, file)
    if destination.index is not None:
        content = _index(source, destination, written)
        with publication.file(destination.index) as file:
            write_all(file, 0, memoryview(content))
    publication.commit()
    for path in destination.replaced:
        path.unlink(missing_ok=True)


def _index(source: Source, destination: Destination, written: Sequence[Written]) -> bytes:
    """What the new index says."""
    if source.index is None or source.content is None:
        raise ValueError("there is no index to rewrite")
    old = [file.path.name for file in source.files]
    same = all(one.names is None for one in written)
    if same and list(destination.names) == old:
        return source.index.read_bytes()
    renamed = dict(zip(old, destination.names, strict=True))
    places = {name: renamed[file] for name, file in source.content["weight_map"].items()}
    if not same:
        held = zip(destination.names, written, strict=True)
        places = {name: file for file, one in held for name in one.names or ()}
    content: dict[str, Any] = {**source.content, "weight_map": places}
    if isinstance(content.get("metadata"), dict):
        total = sum(one.nbytes for one in written)
        content["metadata"] = {**content["metadata"]} | ({} if same else {"total_size": total})
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def find_destination(source: Source, output: Path, *, as_safetensors: bool = False) -> Destination:
    """Decide where the pruned files go.

    A folder that exists keeps its old files until the new index, written last, names the new ones:
    new files take names that are not taken.

    Args:
        source: the checkpoint.
        output: a file if the source is one, else a folder.
        as_safetensors: whether only safetensors can hold the result.

    Raises:
        InvalidArgumentError: the output is of another kind than the source, or a folder that holds
            another checkpoint.
    """
    if source.folder is None:
        return _single(source, output, as_safetensors)
    if suffix_of(output) in SUFFIXES and not output.is_dir():
        raise InvalidArgumentError(
            f"{source.folder} is a folder, and so must be the output: {output} is a file's name"
        )
    if output.exists() and not output.is_dir():
        raise InvalidArgumentError(f"{output} is a file, and the output must be a folder")
    names = tuple(_renamed(f.path.name, as_safetensors) for f in source.files)
    index = None if source.index is None else _renamed(source.index.name, as_safetensors)
    # An older output inside the source is no part of it.
    there = output.absolute()
    others = tuple(p for p in source.others if there not in (source.folder / p).absolute().parents)
    if not output.exists():
        return Destination(output, names, index, others)
    in_place = output.samefile(source.folder)
    if in_place and names != tuple(f.path.name for f in source.files):
        raise InvalidArgumentError(
            f"{output} would hold one checkpoint in two formats: give another folder"
        )
    replaced = _replaced(output, index) if index is not None else ()
    _refuse_others(output, {*names, *replaced, *([index] if index else [])}, source, in_place)
    if index is not None:
        names = tuple(_fresh(output, name) for name in names)
    gone = tuple(output / name for name in replaced if name not in names)
    return Destination(output, names, index, () if in_place else others, gone)


def _single(source: Source, output: Path, as_safetensors: bool) -> Destination:
    stored = source.files[0]
    if output.is_dir():
        output = output / _renamed(stored.path.name, as_safetensors)
    if suffix_of(output) not in (*SUFFIXES, suffix_of(stored.path)):
        raise InvalidArgumentError(
            f"the output {output} must be a {', '.join(SUFFIXES)} file, as the input is a file"
        )
    if suffix_of(output) != ".safetensors" and (
        as_safetensors or (not stored.pickled and suffix_of(output) in SUFFIXES)
    ):
        why = "compressed weights are" if as_safetensors else f"{stored.path.name} is"
        raise InvalidArgumentError(
            f"{why} safetensors, and so must be the output: write "
            f"{output.with_name(stem_of(output.name))}.safetensors"
        )
    return Destination(output.parent, (output.name,))


def _renamed(name: str, as_safetensors: bool) -> str:
    """The name that Hugging Face gives to the same file as safetensors."""
    if not as_safetensors or ".safetensors" in name:
        return name
    stem, index = (name[: -len(INDEX)], INDEX) if is_index(name) else (name, "")
    return f"{stem_of(stem)}.safetensors".removeprefix("pytorch_") + index


def _replaced(folder: Path, index: str) -> tuple[str, ...]:
    """The files that the folder's index names now."""
    return tuple(read_index(folder / index)[1]) if (folder / index).is_file() else ()


def _refuse_others(folder: Path, ours: set[str], source: Source, in_place: bool) -> None:
    """A loader may take other weights in the folder for the result."""
    known = ours | ({str(path) for path in source.left_out} if in_place else set[str]())
    for path in sorted(folder.iterdir()):
        if is_weights(path.name) and path.name not in known:
            raise InvalidArgumentError(
                f"{folder} holds other weights ({path.name}): give a new folder for the output"
            )


def _fresh(folder: Path, name: str) -> str:
    """The name, or one beside it that is not taken."""
    stem, suffix = Path(name).stem, Path(name).suffix
    stem = re.sub(r"\.r\d+$", "", stem)
    number = 0
    while (folder / name).exists():
        number += 1
        name = f"{stem}.r{number}{suffix}"
    return name
