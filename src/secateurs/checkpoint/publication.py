"""Files that appear together when all of them are complete, or not at all."""

import contextlib
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from secateurs._io.durable import (
    remove_leftovers,
    sync_folder,
    temporary_of,
    write_failure,
)
from secateurs._io.file_access import create, keep_access, make_folder
from secateurs._io.lock import FolderLock
from secateurs._io.regular_files import reading
from secateurs.checkpoint.journal import LOCK, NOTE, clear_abandoned, write_note
from secateurs.checkpoint.weight_files import is_weights
from secateurs.errors import Argument, FailureError


class Publication:
    """Files under temporary names, which are renamed together.

    If the folder does not exist, everything is written into a folder with a temporary name, and
    one rename makes it appear. If it exists, each file has a temporary name in the same folder, and
    the files are renamed in the order in which they were written. If a name is a link, the new file
    replaces the link, and the file that the link leads to stays.

    Args:
        folder: the folder of the files.
        like: the folder whose mode a new one gets.
        index: the name of the index, if one lists the shards. Then only one process writes in the
            folder, and leftovers of a killed process are removed.
    """

    def __init__(self, folder: Path, *, like: Path | None = None, index: str | None = None):
        self._folder, self._like = folder, like
        self._fresh = not folder.exists()
        self._index = None if self._fresh else index
        self._staging = temporary_of(folder) if self._fresh else folder
        self._staged: dict[Path, Path] = {}
        self._undo = ExitStack()

    def __enter__(self) -> "Publication":
        folder = self._folder
        try:
            with ExitStack() as undo:  # also of what was done before an error here
                remove_leftovers(folder.parent, lambda name: name == folder.name)
                if self._fresh:
                    undo.callback(shutil.rmtree, self._staging, ignore_errors=True)
                    make_folder(self._staging, self._like)
                if self._index is not None:
                    self._reserve(undo, self._index)
                undo.callback(self._remove_staged)
                self._undo = undo.pop_all()
        except OSError as error:
            raise write_failure(folder, error) from error
        return self

    def _reserve(self, undo: ExitStack, index: str) -> None:
        """Lock the folder, and remove what a killed process left in it."""
        lock = FolderLock(self._folder / LOCK)
        lock.acquire()
        undo.callback(lock.release)
        clear_abandoned(self._folder)
        remove_leftovers(self._folder, lambda name: name in (NOTE, index) or is_weights(name))
        undo.callback(clear_abandoned, self._folder)

    def _remove_staged(self) -> None:
        for temporary in self._staged:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._undo.close()

    def check_room(self, size: int) -> None:
        """Refuse to begin if the files will not fit on the disk."""
        free = shutil.disk_usage(self._staging).free
        if free < size:
            raise FailureError(
                f"cannot write {self._folder}: the disk is full, {size:,} bytes are needed and "
                f"{free:,} are free; make room, or give another ",
                Argument("output"),
            )

    @contextmanager
    def file(
        self, name: str, *, like: Path | None = None, instead: Path | None = None
    ) -> Generator[FileIO]:
        """Open a file to be written; when the block ends, its contents are on the disk.

        Args:
            name: its name, or its path inside the folder.
            like: the file that it is made from; a new file gets no wider permissions.
            instead: the file that it replaces, if that has another name. The new file gets the
                owner, the group and the mode of the file that it replaces.

        Raises:
            FailureError: it cannot be written, or ``like`` is gone.
        """
        final = self._staging / name
        model = None
        if like is not None:
            with reading(like):
                model = like.stat()
        try:
            self._make_folder(Path(name).parent, None if like is None else like.parent)
            temporary = final
            if not self._fresh:
                remove_leftovers(final.parent, lambda found: found == final.name)
                temporary = temporary_of(final)
            old = _found(final if instead is None else instead)
            self._staged[temporary] = final
            with create(temporary, model, old) as file:
                yield file
                if old is not None:
                    keep_access(file, old)
                os.fsync(file.fileno())
        except OSError as error:
            raise write_failure(self._folder / name, error) from error

    def link(self, name: str, target: str) -> None:
        """Make a link to a path relative to its folder, unless the name is taken."""
        path = self._staging / name
        try:
            self._make_folder(Path(name).parent, None)
            if not os.path.lexists(path):
                path.symlink_to(target)
        except OSError as error:
            raise write_failure(self._folder / name, error) from error

    def _make_folder(self, inside: Path, like: Path | None) -> None:
        """Make a folder and its parents inside that of the files, with the mode of ``like``."""
        if inside != Path() and not (self._staging / inside).is_dir():
            self._make_folder(inside.parent, None if like is None else like.parent)
            make_folder(self._staging / inside, like)

    def commit(self, shards: Sequence[str] = (), replaced: Sequence[Path] = ()) -> None:
        """Rename every file to its final name.

        The new index names ``shards``; the files in ``replaced``, which only the old index names,
        are removed.
        """
        try:
            if self._fresh:
                for folder in {path.parent for path in self._staged}:
                    sync_folder(folder)
                self._staging.rename(self._folder)
                sync_folder(self._folder.parent)
            else:
                self._replace(shards, replaced)
        except OSError as error:
            raise write_failure(self._folder, error) from error
        self._staged.clear()

    def _replace(self, shards: Sequence[str], replaced: Sequence[Path]) -> None:
        """Rename one file after another, the index last."""
        if self._index is not None:
            new = {str(f.relative_to(self._folder)): t for t, f in self._staged.items()}
            new = {name: temporary for name, temporary in new.items() if name in shards}
            taken = [name for name in new if os.path.lexists(self._folder / name)]
            if taken:
                raise FailureError(
                    f"{taken[0]} has appeared in {self._folder}: another program writes "
                    "there; run this again when it is done"
                )
            write_note(self._folder, self._index, new, replaced)
        for temporary, final in self._staged.items():
            temporary.replace(final)
        for folder in {path.parent for path in self._staged}:
            sync_folder(folder)
        if self._index is not None:
            clear_abandoned(self._folder)


def _found(path: Path) -> os.stat_result | None:
    """The status of a file; None if there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
