"""What a process that was killed while it replaced the shards of a folder left there.

New shards take their names one after another before the index, which names them, does, and the old
ones go one after another after that. A note in the folder says meanwhile which files these are, so
that the next run can tell the rest of this one from files that somebody else has put there.
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
"""Files of our own, which are no part of any checkpoint."""

_State = tuple[int, int, int]


@dataclass(frozen=True)
class _Note:
    """What the note says: the new files and the old ones, and which files these were."""

    index: str
    new: Mapping[str, _State]
    old: Mapping[str, _State]


def write_note(folder: Path, index: str, new: Mapping[str, Path], old: Iterable[Path]) -> None:
    """Leave the note, before the first file takes its name.

    Args:
        folder: where.
        index: the name of the index.
        new: the new shards under their temporary names, by their names.
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
    """The shards in a folder that a killed process left there, and that no index names.

    New ones if the old index is still there, else old ones. A file that somebody has put in their
    place meanwhile is none of them.
    """
    note = _read(folder / NOTE)
    if note is None:
        return ()
    try:
        index = folder / note.index
        named = set(read_index(index)[1]) if index.exists() else set[str]()
    except FailureError:
        return ()
    left: Mapping[str, _State] = {}
    if named.isdisjoint(note.new):
        left = note.new
    elif named.issuperset(note.new):
        left = note.old
    return tuple(
        name
        for name, state in left.items()
        if name not in named and os.path.lexists(folder / name) and _state(folder / name) == state
    )


def clear_abandoned(folder: Path) -> None:
    """Remove these shards, and the note.

    Raises:
        OSError: it cannot be done.
    """
    if not os.path.lexists(folder / NOTE):
        return
    for name in abandoned(folder):
        (folder / name).unlink(missing_ok=True)
    (folder / NOTE).unlink(missing_ok=True)


def _state(path: Path) -> _State:
    """What tells a file from another that takes its name: renaming does not change it."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> _Note | None:
    """The note; None if there is none, or one that this module has not written."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        said = read_object_file(path)
    except FailureError:
        return None
    index, new, old = said.get("index"), _states(said.get("new")), _states(said.get("old"))
    if not isinstance(index, str) or not _is_index(index) or new is None or old is None:
        return None
    return _Note(index, new, old)


def _states(found: Any) -> dict[str, _State] | None:
    """Files by name; None if it is anything else."""
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


def _is_index(name: str) -> bool:
    return is_index(name) and is_shard_name(name[: -len(INDEX)])
