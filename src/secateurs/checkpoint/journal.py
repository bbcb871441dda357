"""A note that lets the next run remove the shards that a killed process left in a folder.

New shards are renamed one after another, then the index that names them, and then the old shards
are removed one after another. While this goes on, a note in the folder lists these files. So the
next run can tell leftovers from files that another program has put there.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from secateurs._io.durable import replace_files
from secateurs._io.json_objects import (
    BrokenJSONError,
    as_object,
    as_text,
    member,
    read_object_file,
)
from secateurs.checkpoint.shard_index import INDEX, is_index, is_shard_name, read_index
from secateurs.errors import FailureError

NOTE = ".secateurs-replacing.json"
LOCK = ".secateurs-lock"
OURS = frozenset((NOTE, LOCK))
"""Files that this package leaves in a folder while it works, which belong to no checkpoint."""


def write_note(folder: Path, index: str, new: Mapping[str, Path], old: Iterable[Path]) -> None:
    """Write the note, before the first file is renamed.

    ``new`` has the temporary paths of the new shards by their final names, and ``old`` the shards
    that the new index will not name.
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
    name, new, old = note
    try:
        index = folder / name
        named = set(read_index(index)[1]) if index.exists() else set[str]()
    except FailureError:
        return ()
    leftover: Mapping[str, object] = {}
    if named.isdisjoint(new):
        leftover = new
    elif named.issuperset(new):
        leftover = old
    return tuple(
        name
        for name, state in leftover.items()
        if name not in named and os.path.lexists(folder / name) and _state(folder / name) == state
    )


def clear_abandoned(folder: Path) -> None:
    """Remove the `abandoned` shards, and the note."""
    if not os.path.lexists(folder / NOTE):
        return
    for name in abandoned(folder):
        (folder / name).unlink(missing_ok=True)
    (folder / NOTE).unlink(missing_ok=True)


def _state(path: Path) -> list[int]:
    """Inode, size and time of the last change: renaming does not change them."""
    found = path.lstat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _read(path: Path) -> tuple[str, dict[str, object], dict[str, object]] | None:
    """The index, and the states of the new and old shards by name.

    None if there is no note that this module has written.
    """
    if path.is_symlink() or not path.is_file():
        return None
    try:
        content = read_object_file(path)
        index = as_text(member(content, "index"))
        new, old = (as_object(member(content, name)) for name in ("new", "old"))
    except (FailureError, BrokenJSONError):
        return None
    known = is_index(index) and all(map(is_shard_name, (index[: -len(INDEX)], *new, *old)))
    return (index, new, old) if known else None
