"""Memory that is returned to the system as soon as a tensor is freed."""

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_USUAL_MOST = 2**25  # up to which glibc raises the threshold by itself


@contextmanager
def freed_at_once(least: int = 2**20) -> Generator[None]:
    """For a ``with`` block, let glibc return large tensors to the system when they are freed.

    glibc returns only blocks that it has mapped one by one. It maps those above a threshold, which
    it raises by itself up to 32 MiB. Smaller blocks come from an arena of the thread and stay in it
    when they are freed; with dozens of threads, as in `Lockstep`, that is more than a GiB.

    Args:
        least: the size in bytes above which a block is mapped.
    """
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):  # no glibc
        yield
        return
    library.malloc_trim(0)  # what was freed before
    library.mallopt(_M_MMAP_THRESHOLD, least)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _USUAL_MOST)
