"""Replace files as a whole: each is the old or the new one, never something between."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from secateurs._io.file_access import create, keep_access, refuse_protected
from secateurs.errors import Argument, FailureError

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]{1,10})\.tmp", re.DOTALL)
"""What `temporary_of` makes of a name."""


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files so that each is old or new at every moment, also after a power cut.

    All contents reach the disk under temporary names in the same folder before the first file is
    replaced, so a full disk leaves every file as it was. A file that is replaced keeps its owner,
    its group and its mode; a link is replaced by a file. Temporary files that killed processes
    left for these files are removed.

    Raises:
        FailureError: The disk is full, or the folder cannot be written, or a file is read-only;
            nothing has changed.
    """
    refuse_protected(contents)
    staged: dict[Path, Path] = {}
    path = Path()
    for folder in {path.parent for path in contents}:
        remove_leftovers(folder, lambda name, at=folder: at / name in contents, of_running=False)
    try:
        for path, content in contents.items():
            staged[path] = temporary_of(path)
            _write_through(staged[path], content, path)
        _rename_all(staged)
        for folder in {path.parent for path in staged}:
            sync_folder(folder)
    except OSError as error:
        # A failed rename names the file that it was to become; `path` is the last one by then.
        raise write_failure(Path(error.filename2 or path), error) from error
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):  # renamed, where all went well
                temporary.unlink()


def _rename_all(staged: Mapping[Path, Path]) -> None:
    """Rename all, also after Ctrl-C in between, since the files belong together."""
    waiting = list(staged.items())
    try:
        while waiting:
            path, temporary = waiting[0]
            temporary.replace(path)
            waiting.pop(0)
    except BaseException as error:
        if not isinstance(error, OSError):
            for path, temporary in waiting:
                with contextlib.suppress(FileNotFoundError):  # the one that was just renamed
                    temporary.replace(path)
        raise


def write_failure(path: Path, error: OSError) -> FailureError:
    """The one-line error for a file that could not be written: what, why, and the remedy."""
    if error.errno in _NO_ROOM:
        return FailureError(
            f"cannot write {path}: the disk is full ({error.strerror}). What was there is intact;"
            " make room, then run the same command again to continue"
        )
    return FailureError(
        f"cannot write {path}: {error.strerror or error}. Check that the folder may be written,"
        " or give another ",
        Argument("output"),
    )


def temporary_of(path: Path) -> Path:
    """The name, in the same folder, under which this process writes what becomes ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(
    folder: Path, wanted: Callable[[str], bool], *, of_running: bool = False
) -> None:
    """Remove the temporary files and folders that killed processes left behind.

    Args:
        folder: the folder.
        wanted: whether to remove those of the file of this name.
        of_running: whether to remove those whose process number is in use, too; for a folder in
            which a lock lets no other process write.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [(Path(entry.path), _LEFTOVER.fullmatch(entry.name)) for entry in entries]
        for path, match in found:
            if match is None or not wanted(match["name"]):
                continue
            if not of_running and _is_another_process(int(match["pid"])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_another_process(pid: int) -> bool:
    """Whether a process of this number runs that is not this one."""
    if pid == os.getpid():
        return False  # in containers the same numbers are used again
    if os.name != "posix":
        return True  # elsewhere os.kill(pid, 0) ends the process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _write_through(temporary: Path, content: bytes, path: Path) -> None:
    old = path.stat() if path.exists() else None
    temporary.unlink(missing_ok=True)  # left by a killed process of the same number
    with create(temporary, None, old) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        if old is not None:
            keep_access(file, old)
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, after which the renames in it survive a power cut."""
    # Windows cannot open a folder, and some network file systems refuse to sync one.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
