"""Notice that a file has changed, or has been replaced, since it was read."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from secateurs._io.regular_files import reading
from secateurs.errors import FailureError

# Seconds in which two changes of a file may get the same date.
_TICK = 0.02


Identity = tuple[int, int, int, int, int]
"""The file system, the file's number there, its size, and when its contents and its properties
changed last in nanoseconds. A file that replaces another has another number."""


def identify(path: Path) -> Identity:
    """Return the identity of a file, from which every later change makes it differ."""
    with reading(path):
        found = path.stat()
        age = time.time() - max(found.st_mtime_ns, found.st_ctime_ns) / 1e9
        if -_TICK < age < _TICK:  # a later change might get the same date
            time.sleep(_TICK - max(age, 0))
            found = path.stat()
        return _identity_of(found)


def check_same(path: Path, descriptor: int, identity: Identity | None) -> None:
    """Refuse an open file that has another identity."""
    if identity is not None and _identity_of(os.fstat(descriptor)) != identity:
        raise FailureError(
            f"{path} changed while it was read: another program writes to it, or has replaced it; "
            "nothing was written. Run this again when that program is done"
        )


def check_unchanged(identities: Mapping[Path, Identity]) -> None:
    """Refuse files that have changed, or do not exist any more."""
    for path, identity in identities.items():
        try:
            # Opened, since network file systems ask the server for a file's status only then.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise FailureError(f"cannot read {path} again: {error.strerror or error}") from error
        try:
            check_same(path, descriptor, identity)
        finally:
            os.close(descriptor)


def _identity_of(found: os.stat_result) -> Identity:
    times = found.st_mtime_ns, found.st_ctime_ns
    return found.st_dev, found.st_ino, found.st_size, *times
