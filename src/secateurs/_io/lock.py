"""A lock, so that only one process at a time writes in a folder."""

import contextlib
import os
import sys
import weakref
from pathlib import Path

from secateurs._io.durable import write_failure
from secateurs.errors import Argument, FailureError


class FolderLock:
    """A lock that the operating system releases when its process ends, however it ends.

    Args:
        path: The lock file; made when the lock is taken, removed when it is released.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        if hasattr(os, "register_at_fork"):
            # A forked worker shares the lock and may outlive a killed parent by seconds; meanwhile
            # the run that continues could not take the lock.
            reference = weakref.ref(self)

            def forget() -> None:
                lock = reference()
                if lock is not None:
                    lock._forget()

            os.register_at_fork(after_in_child=forget)

    def acquire(self) -> None:
        """Take the lock; does nothing when this object holds it already.

        Raises:
            FailureError: Another process (or another object of this one) writes in the folder, or
                the lock file cannot be made.
        """
        while self._descriptor is None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise write_failure(self._path, error) from error
            try:
                free = _try_lock(descriptor)
                current = free and self._is_current(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if current:
                self._descriptor = descriptor
                return
            os.close(descriptor)
            if not free:
                raise FailureError(
                    f"another run is writing in {self._path.parent}; wait until it ends, or give"
                    " another ",
                    Argument("output"),
                )

    def release(self) -> None:
        """Release the lock; safe to call twice."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # Removed while the lock is held, else it could be the file of the next process. (Windows
        # cannot remove an open file; there it stays, which does no harm.)
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()

    def _is_current(self, descriptor: int) -> bool:
        # Its last owner may have removed the file after this process opened it.
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def _forget(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    """Try to lock an open file; True also where the file system has no locks."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # On some network file systems; writing without a lock is better than not at all.
        return True
    return True
