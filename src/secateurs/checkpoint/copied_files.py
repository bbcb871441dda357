"""What goes along with the weights of a folder: its other files, but nothing from outside it."""

import filecmp
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secateurs.checkpoint.journal import OURS
from secateurs.checkpoint.weight_files import StoredCheckpoint, is_weights
from secateurs.errors import InvalidArgumentError


@dataclass(frozen=True)
class Companions:
    """What is copied.

    Attributes:
        files: by their paths in the folder; those that are links are copied as files.
        links: links to folders inside the folder, which stay links, and what they say in the copy.
    """

    files: tuple[Path, ...] = ()
    links: tuple[tuple[Path, str], ...] = ()


NOTHING = Companions()


def companions(source: StoredCheckpoint, folder: Path, output: Path) -> Companions:
    """Choose what of a folder is copied to the output.

    An older output inside the folder is no part of it.

    Args:
        source: the checkpoint.
        folder: its folder.
        output: another folder, which may not exist yet.

    Raises:
        InvalidArgumentError: a link leads outside the folder, or nowhere. The files that the cache
            of Hugging Face keeps for a snapshot, in the ``blobs`` beside ``snapshots``, count as
            inside.
    """
    root, there = folder.resolve(), output.resolve()
    inside = there.relative_to(root) if root in there.parents else None

    def is_part(path: Path) -> bool:
        return inside is None or not path.is_relative_to(inside)

    links: list[tuple[Path, str]] = []
    for path in filter(is_part, _links(folder)):
        target = _target(folder, path, root)
        if target.is_dir():
            links.append((path, os.path.relpath(target, (root / path).parent)))
    files = tuple(path for path in source.others if is_part(path) and path.name not in OURS)
    return Companions(files, tuple(links))


def check_places(found: Companions, folder: Path, output: Path, *, replaces: bool) -> None:
    """Refuse copies that would land outside the output, in the input, or on another's files.

    Args:
        found: what is copied.
        folder: from where.
        output: where to; it exists.
        replaces: whether it holds an older result, whose files may be replaced.

    Raises:
        InvalidArgumentError: so it is.
    """
    root, there = folder.resolve(), output.resolve()
    for path in (*found.files, *(link for link, _ in found.links)):
        final = output / path
        parent = final.parent.resolve()
        strays = not parent.is_relative_to(there)
        if strays or (there in root.parents and parent.is_relative_to(root)):
            where = "outside it" if strays else "into the input"
            raise InvalidArgumentError(
                f"{path} of {folder} would be copied to {final}, which leads {where}: give a new "
                "folder for the output"
            )
        if final.is_file() and not replaces and not filecmp.cmp(folder / path, final, False):
            raise InvalidArgumentError(
                f"{final} is another file than {path} of {folder}, which would take its place: "
                "give a new folder for the output"
            )


def _links(folder: Path) -> Iterator[Path]:
    """The links among what would be copied, by their paths in the folder."""
    for where, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in (*inside, *sorted(names)):
            path = Path(where) / name
            if path.is_symlink() and not is_weights(name) and not name.endswith(".tmp"):
                yield path.relative_to(folder)


def _target(folder: Path, path: Path, root: Path) -> Path:
    """What a link leads to."""
    try:
        target = (folder / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidArgumentError(
            f"{path} in {folder} is a link that leads nowhere, so it cannot be copied: remove it, "
            "or get what it should lead to"
        ) from error
    if not any(target.is_relative_to(allowed) for allowed in (root, *_blobs(root))):
        raise InvalidArgumentError(
            f"{path} in {folder} is a link to {target}, outside the folder, so it is not copied: "
            "put a copy in the place of the link if it belongs to the checkpoint, else remove it"
        )
    return target


def _blobs(root: Path) -> list[Path]:
    """Where the cache of Hugging Face keeps the files of a snapshot."""
    return [p.parent / "blobs" for p in root.parents if p.name == "snapshots"]
