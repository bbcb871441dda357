"""Notice that a file has changed, or has been replaced, since it was read."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateurs._io.regular_files import reading
from secateurs.errors import FailureError

# Seconds in which two changes of a file may get the same date.
_TICK = 0.02


@dataclass(frozen=True)
class Identity:
    """The file that a path leads to, and its state.

    Attributes:
        device: the file system.
        inode: the file's number there; a file that replaces it has another number.
        size: its bytes.
        modified: when its contents changed last, in nanoseconds.
        changed: when its contents, name or properties changed last, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Identity":
        """Take the identity from the file's status."""
        times = found.st_mtime_ns, found.st_ctime_ns
        return cls(found.st_dev, found.st_ino, found.st_size, *times)


def identify(path: Path) -> Identity:
    """Return the identity of a file, from which every later change makes it differ.

    Raises:
        FailureError: there is no such file.
    """
    with reading(path):
        found = Identity.of(path.stat())
        age = time.time() - max(found.modified, found.changed) / 1e9
        if -_TICK < age < _TICK:  # a later change might get the same date
            time.sleep(_TICK - max(age, 0))
            found = Identity.of(path.stat())
        return found


def check_same(path: Path, descriptor: int, identity: Identity | None) -> None:
    """Refuse an open file that has another identity.

    Raises:
        FailureError: it has.
    """
    if identity is not None and Identity.of(os.fstat(descriptor)) != identity:
        raise FailureError(
            f"{path} changed while it was read: another program writes to it, or has replaced it; "
            "nothing was written. Run this again when that program is done"
        )


def check_unchanged(identities: Mapping[Path, Identity]) -> None:
    """Refuse files that have changed.

    Raises:
        FailureError: one has changed, or does not exist any more.
    """
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
