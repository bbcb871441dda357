"""Writing large files, a part at a time."""

import os
from io import FileIO

_WINDOW = 1 << 26  # bytes written before the disk is told to take them


def write_all(file: FileIO, start: int, data: memoryview) -> None:
    """Write bytes at a place, however many calls it takes."""
    file.seek(start)
    done = 0
    while done < len(data):
        done += file.write(data[done:])
    _let_go(file, start, start + len(data))


def _let_go(file: FileIO, start: int, stop: int) -> None:
    """Keep what was written long ago out of the page cache; call it after every write.

    A file that is larger than the memory to spare would otherwise push out the very input that is
    read next, and every page taken anew costs the kernel more than pruning what is on it. The call
    starts writing pages that the disk does not have yet and drops those that it has, so a window
    is handed to the disk when it is full and dropped with one of the next.
    """
    edge = stop // _WINDOW * _WINDOW
    if edge > start and hasattr(os, "posix_fadvise"):
        first = max(start // _WINDOW - 2, 0) * _WINDOW
        os.posix_fadvise(file.fileno(), first, edge - first, os.POSIX_FADV_DONTNEED)
