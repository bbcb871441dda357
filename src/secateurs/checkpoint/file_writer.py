"""Write large files, and keep them out of the page cache."""

import os
from io import FileIO

WINDOW = 1 << 26
"""The number of bytes after which the system is asked to write them to the disk."""


def write_all(file: FileIO, start: int, data: memoryview, *, window: int = WINDOW) -> None:
    """Write bytes from the byte ``start`` on, however many calls it takes."""
    file.seek(start)
    done = 0
    while done < len(data):
        done += file.write(data[done:])
    _drop_cached(file, start, start + len(data), window)


def _drop_cached(file: FileIO, start: int, stop: int, window: int) -> None:
    """Drop earlier windows from the page cache; called after every write.

    A file that is larger than the free memory would otherwise displace the input that is read next,
    and every new page costs the kernel more time than pruning the weights on it. The system call
    starts to write the pages that are not on the disk yet, and drops those that are. So a window is
    written when it is full, and dropped when one of the next two is.
    """
    edge = stop // window * window
    if edge > start and hasattr(os, "posix_fadvise"):
        first = max(start // window - 2, 0) * window
        os.posix_fadvise(file.fileno(), first, edge - first, os.POSIX_FADV_DONTNEED)
