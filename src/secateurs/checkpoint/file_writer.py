"""Writing large files in steps."""

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
    _drop_cached(file, start, start + len(data), window)


def _drop_cached(file: FileIO, start: int, stop: int, window: int) -> None:
    """Keep what was written long ago out of the page cache; called after every write.

    A file that is larger than the free memory would otherwise displace the input that is read next,
    and every new page costs the kernel more than pruning the weights on it. The call starts to
    write pages that are not on the disk yet and drops those that are, so a window is written when
    it is full and dropped with one of the next.
    """
    edge = stop // window * window
    if edge > start and hasattr(os, "posix_fadvise"):
        first = max(start // window - 2, 0) * window
        os.posix_fadvise(file.fileno(), first, edge - first, os.POSIX_FADV_DONTNEED)
