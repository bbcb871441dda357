"""Files that appear when they are complete, or not at all."""

import contextlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from secateurs.errors import FailureError
from secateurs.results.durable import sync_folder, write_failure

_TEMPORARY = ".{name}.{pid}.tmp"
_WINDOW = 1 << 26  # bytes written before the disk is told to take them


class Publication:
    """Files under temporary names, that take their own names together.

    Where the folder does not exist, everything is written into a folder with a temporary name, and
    one rename makes it appear. Where it does, each file has a temporary name beside its own, and
    they are renamed in the order in which they were written.

    Args:
        folder: where the files belong.

    Example:
        with Publication(folder) as publication:
            with publication.file("a") as file:
                file.write(b"...")
            publication.commit()
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._fresh = not folder.exists()
        self._staging = _temporary(folder) if self._fresh else folder
        self._staged: dict[Path, Path] = {}

    def __enter__(self) -> "Publication":
        try:
            _remove_leftovers(self._folder)
            self._staging.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_failure(self._folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        for temporary in self._staged:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if self._fresh:
            shutil.rmtree(self._staging, ignore_errors=True)

    def check_room(self, size: int) -> None:
        """Refuse at once what will not fit.

        Raises:
            FailureError: the disk has less than ``size`` bytes left.
        """
        free = shutil.disk_usage(self._staging).free
        if free < size:
            raise FailureError(
                f"cannot write {self._folder}: the disk is full, {size:,} bytes are needed and "
                f"{free:,} are free; make room, or give another --output"
            )

    @contextmanager
    def file(self, name: str) -> Generator[FileIO]:
        """Open a file to be written; when the block ends, its contents are on the disk.

        Args:
            name: its name, or its path inside the folder.

        Raises:
            FailureError: it cannot be written.
        """
        final = self._staging / name
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            if not self._fresh:
                _remove_leftovers(final)
            temporary = final if self._fresh else _temporary(final)
            self._staged[temporary] = final
            with temporary.open("w+b", buffering=0) as file:
                yield file
                os.fsync(file.fileno())
        except OSError as error:
            raise write_failure(self._folder / name, error) from error

    def commit(self) -> None:
        """Give every file its name.

        Raises:
            FailureError: it cannot be done.
        """
        try:
            if self._fresh:
                for folder in {path.parent for path in self._staged}:
                    sync_folder(folder)
                self._staging.rename(self._folder)
                sync_folder(self._folder.parent)
            else:
                for temporary, final in self._staged.items():
                    temporary.replace(final)
                for folder in {path.parent for path in self._staged}:
                    sync_folder(folder)
        except OSError as error:
            raise write_failure(self._folder, error) from error
        self._staged.clear()


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


def _temporary(path: Path) -> Path:
    return path.with_name(_TEMPORARY.format(name=path.name, pid=os.getpid()))


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left under temporary names for this path."""
    prefix = f".{path.name}."
    if not path.parent.is_dir():
        return
    with os.scandir(path.parent) as found:
        left = [Path(e.path) for e in found if e.name.startswith(prefix)]
    for leftover in left:
        pid = leftover.name.removeprefix(prefix).removesuffix(".tmp")
        if leftover.name.endswith(".tmp") and pid.isdecimal() and not _runs(int(pid)):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    leftover.unlink()


def _runs(pid: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere os.kill asks nothing, it kills
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
