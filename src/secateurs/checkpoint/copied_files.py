"""The other files of a checkpoint's folder, which are copied; nothing from outside it is."""

import filecmp
import os
from dataclasses import dataclass
from pathlib import Path

from secateurs.checkpoint.journal import OURS
from secateurs.checkpoint.weight_files import StoredCheckpoint, is_weights, paths_in
from secateurs.errors import InvalidArgumentError


@dataclass(frozen=True)
class CopiedFiles:
    """What is copied beside the weights.

    Attributes:
        files: paths in the folder; links to files are copied as files.
        links: links to folders inside the folder, which stay links, with their new targets.
    """

    files: tuple[Path, ...] = ()
    links: tuple[tuple[Path, str], ...] = ()


def find_copied(source: StoredCheckpoint, folder: Path, output: Path) -> CopiedFiles:
    """Choose the files of a folder that are copied to the output.

    If the output is inside the folder, its older contents are not copied.

    Raises:
        InvalidArgumentError: a link leads outside the folder, or to no file. The files that the
            cache of Hugging Face keeps for a snapshot, in the folder ``blobs`` beside
            ``snapshots``, count as inside.
    """
    root, resolved = folder.resolve(), output.resolve()
    inside = resolved.relative_to(root) if root in resolved.parents else None

    def is_input(path: Path) -> bool:
        return inside is None or not path.is_relative_to(inside)

    links: list[tuple[Path, str]] = []
    for path in filter(is_input, paths_in(folder)):
        if not (folder / path).is_symlink() or is_weights(path.name):
            continue
        target = _target(folder, path, root)
        if target.is_dir():
            links.append((path, os.path.relpath(target, (root / path).parent)))
    files = tuple(path for path in source.others if is_input(path) and path.name not in OURS)
    return CopiedFiles(files, tuple(links))


def check_copies(found: CopiedFiles, folder: Path, output: Path, *, replaces: bool) -> None:
    """Refuse copies that would be outside the output, in the input, or replace other files.

    If the output ``replaces`` an older result, its files may be replaced.
    """
    root, resolved = folder.resolve(), output.resolve()
    for path in (*found.files, *(link for link, _ in found.links)):
        final = output / path
        parent = final.parent.resolve()
        is_outside = not parent.is_relative_to(resolved)
        if is_outside or (resolved in root.parents and parent.is_relative_to(root)):
            where = "outside it" if is_outside else "into the input"
            raise InvalidArgumentError(
                f"{path} of {folder} would be copied to {final}, which leads {where}: give a new "
                "folder for the output"
            )
        if final.is_file() and not replaces and not filecmp.cmp(folder / path, final, False):
            raise InvalidArgumentError(
                f"{final} is another file than {path} of {folder}, which would replace it: "
                "give a new folder for the output"
            )


def _target(folder: Path, path: Path, root: Path) -> Path:
    """The file or folder that a link leads to."""
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
            "replace the link by a copy if it belongs to the checkpoint, else remove it"
        )
    return target


def _blobs(root: Path) -> list[Path]:
    """The folders in which the cache of Hugging Face keeps the files of a snapshot."""
    return [p.parent / "blobs" for p in root.parents if p.name == "snapshots"]
