"""Whether a file is still the one that was read before."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateurs.errors import FailureError

# Within one tick of the clock that dates files, two changes have the same date.
_TICK = 0.02


@dataclass(frozen=True)
class Identity:
    """Which file a name leads to, and in what state.

    Attributes:
        device: the file system.
        inode: the file's number there: a file that is renamed to the name has another.
        size: its bytes.
        modified: when it was written last, in nanoseconds.
        changed: when it was written, renamed or given other properties last, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Identity":
        """Take what the system says of a file."""
        times = found.st_mtime_ns, found.st_ctime_ns
        return cls(found.st_dev, found.st_ino, found.st_size, *times)


def identify(path: Path) -> Identity:
    """Say which file this is, so that every later change shows.

    Raises:
        FailureError: there is none.
    """
    try:
        found = Identity.of(path.stat())
        age = time.time() - max(found.modified, found.changed) / 1e9
        if -_TICK < age < _TICK:
            time.sleep(_TICK - max(age, 0))
            found = Identity.of(path.stat())
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error
    return found


def check_same(path: Path, descriptor: int, identity: Identity | None) -> None:
    """Refuse an open file that is not the one, or not as it was.

    Raises:
        FailureError: so it is.
    """
    if identity is not None and Identity.of(os.fstat(descriptor)) != identity:
        raise FailureError(
            f"{path} changed while it was read: another program writes to it, or has replaced it; "
            "nothing was written. Run this again when that program is done"
        )


def check_unchanged(identities: Mapping[Path, Identity]) -> None:
    """Refuse files that are not what they were.

    Raises:
        FailureError: one is not, or is gone.
    """
    for path, identity in identities.items():
        try:
            # Opened, since a file system on the network looks then what has become of a file.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise FailureError(f"cannot read {path} again: {error.strerror or error}") from error
        try:
            check_same(path, descriptor, identity)
        finally:
            os.close(descriptor)
