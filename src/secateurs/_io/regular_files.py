"""Opens files from outside without waiting for pipes or devices."""

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from secateurs.errors import FailureError

_LFS = b"version https://git-lfs.github.com/spec/"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read bytes; links are followed.

    Pipes and devices are refused at once: reading from them could wait for ever, or never end.

    Raises:
        OSError: there is no such file, it may not be read, or it is no regular file; its
            ``strerror`` says which, as a part of a sentence.
    """
    if "\0" in os.fspath(path):  # no system has such names, and Python raises a ValueError
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    _check(path, Path(path).stat())  # first, since even opening a device can have an effect
    file = open(path, "rb", opener=_open)  # noqa: SIM115  # the caller closes it
    try:
        _check(path, os.fstat(file.fileno()))  # again, since the file may have been replaced
    except BaseException:
        file.close()
        raise
    return file


def _open(path: str, flags: int) -> int:
    for name in ("O_NONBLOCK", "O_NOCTTY"):  # where the system has them
        flags |= getattr(os, name, 0)
    return os.open(path, flags)


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of a regular file."""
    with open_regular(path) as file:
        return file.read()


def read_if_there(path: str | os.PathLike[str]) -> bytes | None:
    """Read the bytes of a regular file; None where there is no file.

    Raises:
        FailureError: it cannot be read.
    """
    with reading(path):
        try:
            return read_regular(path)
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Generator[None]:
    """Turn an error of the system in the body into one that names the file.

    Raises:
        FailureError: the body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error


def remedy_for(path: str | os.PathLike[str]) -> str:
    """Why a file cannot be understood, and what to do: the end of an error message."""
    with contextlib.suppress(OSError), open_regular(path) as file:
        if file.read(len(_LFS)) == _LFS:
            return "it is a pointer of Git LFS, not the file itself: run git lfs pull in its folder"
    return "it is damaged or of another format; get the file again"


def _check(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}, not a regular file", str(path))
