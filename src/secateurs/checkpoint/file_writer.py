"""Writing large files, a part at a time."""

import os
from io import FileIO

WINDOW = 1 << 26
"""Bytes written before the disk is told to take them."""


def write_all(file: FileIO, start: int, data: memoryview, *, window: int = WINDOW) -> None:
    """Write bytes from the byte ``start`` on, however many calls it takes.

    Args:
        file: open for writing.
        start: where the first byte goes.
        data: what to write.
        window: bytes written before the disk is told to take them.
    """
    file.seek(start)
    done = 0
    while done < len(data):
        done += file.write(data[done:])
    _let_go(file, start, start + len(data), window)


def _let_go(file: FileIO, start: int, stop: int, window: int) -> None:
    """Keep what was written long ago out of the page cache; call it after every write.

    A file that is larger than the memory to spare would otherwise push out the very input that is
    read next, and every page taken anew costs the kernel more than pruning what is on it. The call
    starts writing pages that the disk does not have yet and drops those that it has, so a window
    is handed to the disk when it is full and dropped with one of the next.
    """
    edge = stop // window * window
    if edge > start and hasattr(os, "posix_fadvise"):
        first = max(start // window - 2, 0) * window
        os.posix_fadvise(file.fileno(), first, edge - first, os.POSIX_FADV_DONTNEED)
