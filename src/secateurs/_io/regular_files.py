"""Opening files that somebody else may have put there."""

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
    """Open a file to read its bytes; links are followed.

    Reading a pipe waits for whoever writes into it, perhaps for ever, and a device may never end:
    what is not a regular file is refused, without waiting.

    Raises:
        OSError: there is no such file, it may not be read, or it is no regular file; `strerror`
            says which, to be put into a sentence.
    """
    _check(path, Path(path).stat())  # a device may act when it is merely opened
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):  # where the system has them
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    try:
        _check(path, os.fstat(descriptor))  # it may have been replaced in between
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        return file.read()


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
    """Why a file makes no sense, and what to do: the end of an error's sentence."""
    with contextlib.suppress(OSError), open_regular(path) as file:
        if file.read(len(_LFS)) == _LFS:
            return "it is a pointer of Git LFS, not the file itself: run git lfs pull where it lies"
    return "it is damaged or of another format; get the file again"


def _check(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}, not a regular file", str(path))
