"""Counts of an unfinished run in its folder: one file for each rank."""

import contextlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs._io.durable import replace_files, write_failure
from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.lock import FolderLock
from secateurs._io.regular_files import read_regular

PROGRESS = "progress.json"
_LOCK = ".lock"
_OF_RANK = re.compile(r"progress-[1-9][0-9]*\.json")


class ProgressFiles:
    """The progress of all ranks in a folder that one run at a time writes to.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FolderLock(folder / _LOCK)

    def save_progress(self, progress: Mapping[str, Any], *, rank: int = 0) -> None:
        """Save the counts of an unfinished run, in place of those saved before.

        Args:
            progress: the counts.
            rank: the rank that they are of. Each rank has a file of its own, in the folder that
                rank 0 has opened and locked for all.

        Raises:
            FailureError: The disk is full, or the folder cannot be written; the earlier progress
                is intact.
        """
        if rank == 0:
            self._lock.acquire()
        name = f"progress-{rank}.json" if rank else PROGRESS
        replace_files({self.folder / name: json.dumps(progress).encode()})

    def load_progress(self) -> dict[str, Any] | None:
        """What `save_progress` saved, or None; None with a warning for a file that is broken.

        Progress only saves time: without it the run starts again and gives the same rows.
        """
        return self._load(PROGRESS)

    def load_progress_of_ranks(self) -> list[dict[str, Any]]:
        """What all ranks saved, rank 0's first; broken files are left out with a warning."""
        found = (self._load(name) for name in self._progress_names())
        return [each for each in found if each is not None]

    def merge_progress(self, progress: Mapping[str, Any]) -> None:
        """Replace the progress of several ranks, if there are several, by their sum.

        A kill in between leaves both the sum and the ranks' files; the sum is loaded first.
        """
        _, *others = self._progress_names()
        if others:
            self.save_progress(progress)
        for name in others:
            self._remove(name)

    def distrust_progress(self, reason: OSError | ValueError, name: str = PROGRESS) -> None:
        """Warn that saved progress cannot be used, so that its work is done again."""
        warnings.warn(
            f"{self.folder / name} cannot be used ({getattr(reason, 'strerror', reason)}): "
            "what had not become a row is measured again",
            stacklevel=3,
        )

    def clear_progress(self) -> None:
        """Remove the progress of all ranks, once their rows are on disk."""
        self._lock.acquire()
        for name in self._progress_names():
            self._remove(name)

    def _has_progress(self) -> bool:
        for name in self._progress_names():
            with contextlib.suppress(OSError, BrokenJSONError):
                if self._read(name) is not None:
                    return True
        return False

    def _load(self, name: str) -> dict[str, Any] | None:
        try:
            return self._read(name)
        except (OSError, BrokenJSONError) as error:
            self.distrust_progress(error, name)
            return None

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return parse_object(read_regular(self.folder / name))
        except FileNotFoundError:
            return None

    def _progress_names(self) -> list[str]:
        """The file of rank 0, whether or not it is there, and those of other ranks."""
        names = (path.name for path in self.folder.iterdir())
        return [PROGRESS, *sorted(filter(is_of_another_rank, names))]

    def _remove(self, name: str) -> None:
        path = self.folder / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_failure(path, error) from error


def is_of_another_rank(name: str) -> bool:
    """Whether a file is the progress of another rank than 0, by its name."""
    return _OF_RANK.fullmatch(name) is not None
