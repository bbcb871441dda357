"""A note that lets the next run remove the shards that a killed process left in a folder.

New shards are renamed one after another, then the index that names them, and then the old shards
are removed one after another. While this goes on, a note in the folder lists these files. So the
next run can tell leftovers from files that another program has put there.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from secateurs._io.json_objects import read_object_file
from secateurs.checkpoint.shard_index import INDEX, is_index, is_shard_name, read_index
from secateurs.errors import FailureError
from secateurs.results.durable import replace_files

NOTE = ".secateurs-replacing.json"
LOCK = ".secateurs-lock"
OURS = frozenset((NOTE, LOCK))
"""Files that this package leaves in a folder while it works, which belong to no checkpoint."""

_State = tuple[int, int, int]  # inode, size, time of the last change


@dataclass(frozen=True)
class _Note:
    """The index, and the states of the new and old shards by name."""

    index: str
    new: Mapping[str, _State]
    old: Mapping[str, _State]


def write_note(folder: Path, index: str, new: Mapping[str, Path], old: Iterable[Path]) -> None:
    """Write the note, before the first file is renamed.

    Args:
        folder: the folder of the shards.
        index: the name of the index.
        new: the temporary paths of the new shards, by their final names.
        old: the shards that the new index will not name.

    Raises:
        FailureError: it cannot be written.
    """
    content = {
        "index": index,
        "new": {name: _state(path) for name, path in new.items()},
        "old": {path.name: _state(path) for path in old if os.path.lexists(path)},
    }
    replace_files({folder / NOTE: json.dumps(content, indent=2).encode()})


def abandoned(folder: Path) -> tuple[str, ...]:
    """The shards that a killed process left in a folder, and that its index does not name.

    These are the new shards if the old index is still there, else the old shards. A file of the
    same name that another program has put there since is not among them.
    """
    note = _read(folder / NOTE)
    if note is None:
        return ()
    try:
        index = folder / note.index
        named = set(read_index(index)[1]) if index.exists() else set[str]()
    except FailureError:
        return ()
    leftover: Mapping[str, _State] = {}
    if named.isdisjoint(note.new):
        leftover = note.new
    elif named.issuperset(note.new):
        leftover = note.old
    return tuple(
        name
        for name, state in leftover.items()
        if name not in named and os.path.lexists(folder / name) and _state(folder / name) == state
    )


def clear_abandoned(folder: Path) -> None:
    """Remove the `abandoned` shards, and the note.

    Raises:
        OSError: one cannot be removed.
    """
    if not os.path.lexists(folder / NOTE):
        return
    for name in abandoned(folder):
        (folder / name).unlink(missing_ok=True)
    (folder / NOTE).unlink(missing_ok=True)


def _state(path: Path) -> _State:
    """What distinguishes a file from another of the same name; renaming does not change it."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> _Note | None:
    """The note; None if there is none that this module has written."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        content = read_object_file(path)
    except FailureError:
        return None
    index, new, old = content.get("index"), _states(content.get("new")), _states(content.get("old"))
    if not isinstance(index, str) or not is_index(index) or new is None or old is None:
        return None
    return _Note(index, new, old) if is_shard_name(index[: -len(INDEX)]) else None


def _states(found: Any) -> dict[str, _State] | None:
    """The states of files by name; None if ``found`` is anything else."""
    if not isinstance(found, dict):
        return None
    states: dict[str, _State] = {}
    for name, state in cast(dict[str, Any], found).items():
        if not is_shard_name(name) or not isinstance(state, list):
            return None
        numbers = cast(list[Any], state)
        if len(numbers) != 3 or any(type(number) is not int for number in numbers):
            return None
        states[name] = (numbers[0], numbers[1], numbers[2])
    return states
