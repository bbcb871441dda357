"""Rights to a new file: only who may read its input, or the file that it replaces, may read it."""

import contextlib
import os
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from secateurs.errors import Argument, FailureError

_BITS = 0o777


def refuse_protected(paths: Iterable[Path]) -> None:
    """Refuse to replace files that nobody may write, which a rename would do all the same.

    Where a name is a link, or one of several hard links, the file stays under its other name.

    Raises:
        FailureError: there is one.
    """
    for path in paths:
        if path.is_symlink() or not path.is_file():
            continue
        found = path.stat()
        if found.st_nlink == 1 and not found.st_mode & 0o222:
            raise FailureError(
                f"{path} is read-only, and would be replaced: choose another ",
                Argument("output"),
                f", or allow it with chmod u+w {path}",
            )


def create(path: Path, like: os.stat_result | None, old: os.stat_result | None) -> FileIO:
    """Create a file under a temporary name, to be written and read.

    Args:
        path: its name, which must be free.
        like: the file that it is made from, if there is one. The new file gets its mode, less the
            umask, as a copy does.
        old: the file that it will replace, if there is one. Until `keep_access` is called, only
            the owner may read and write the new file.

    Raises:
        OSError: it cannot be created.
    """
    if old is not None:
        return _opened(path, 0o600)
    mode = 0o666 if like is None else like.st_mode & _BITS
    file = _opened(path, mode)
    if like is not None and _without_group(mode) != mode:
        if os.fstat(file.fileno()).st_gid == like.st_gid:
            return file
        # Its group is not the input's. Created anew, since another process may have opened it.
        file.close()
        path.unlink()
        file = _opened(path, _without_group(mode))
    return file


def make_folder(path: Path, like: Path | None) -> None:
    """Make a folder that others may use no more than ``like``, and its owner may write in.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if like is None:
        path.mkdir()
        return
    old = like.stat()
    path.mkdir(mode=old.st_mode & _BITS | stat.S_IRWXU)
    new = path.stat()
    if new.st_gid != old.st_gid:
        path.chmod(_without_group(new.st_mode & _BITS) | stat.S_IRWXU)


def keep_access(file: FileIO, old: os.stat_result) -> None:
    """Give a file the owner, group and mode of the file that it replaces, where allowed."""
    if not hasattr(os, "fchown") or not hasattr(os, "fchmod"):
        return
    new = os.fstat(file.fileno())
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
        except OSError:  # only root may change the owner
            with contextlib.suppress(OSError):
                os.fchown(file.fileno(), -1, old.st_gid)
    mode = old.st_mode & _BITS
    if os.fstat(file.fileno()).st_gid != old.st_gid:
        mode = _without_group(mode)
    with contextlib.suppress(OSError):  # some file systems have no modes
        os.fchmod(file.fileno(), mode)


def _opened(path: Path, mode: int) -> FileIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return FileIO(os.open(path, flags, mode), "r+")


def _without_group(mode: int) -> int:
    """The mode with the group's rights reduced to those that everybody has."""
    return mode & (0o707 | (mode & 0o007) << 3)
