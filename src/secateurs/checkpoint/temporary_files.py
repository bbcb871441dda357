"""Temporary names, and the removal of files that killed processes left under them."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from secateurs.checkpoint.weight_files import is_weights
from secateurs.results.durable import is_another_process

_TEMPORARY = ".{name}.{pid}.tmp"
_PATTERN = re.compile(r"\.(.+)\.(\d+)\.tmp", re.DOTALL)


def temporary_name(path: Path) -> Path:
    """The temporary name, in the same folder, of the file that will replace ``path``."""
    return path.with_name(_TEMPORARY.format(name=path.name, pid=os.getpid()))


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left for this path."""
    _remove(path.parent, lambda name: name == path.name)


def remove_all_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove the temporary files that killed processes left for weights in a folder.

    Args:
        folder: the folder.
        names: the names of further files.
    """
    _remove(folder, lambda name: name in names or is_weights(name))


def _remove(folder: Path, wanted: Callable[[str], bool]) -> None:
    if not folder.is_dir():
        return
    with os.scandir(folder) as found:
        matched = [(Path(e.path), match) for e in found if (match := _PATTERN.fullmatch(e.name))]
    for leftover, match in matched:
        if not wanted(match[1]) or is_another_process(int(match[2])):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()
