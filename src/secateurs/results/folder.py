"""The output folder of a run: rows, configuration and progress, readable at every moment."""

import contextlib
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, overload

from secateurs._io.json_objects import BrokenJSONError, parse_object, plain
from secateurs._io.regular_files import read_regular
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.results.config import compared, differences, read_config
from secateurs.results.durable import remove_leftovers, replace_files, write_failure
from secateurs.results.formats import R, csv_text, jsonl_text, read_jsonl, to_rows
from secateurs.results.lock import FolderLock
from secateurs.results.row import Row

JSONL = "results.jsonl"
CSV = "results.csv"
CONFIG = "config.json"
PROGRESS = "progress.json"
LOCK = ".lock"
_OF_RANK = re.compile(r"progress-[1-9][0-9]*\.json")
_LEFT_BY_RANK = re.compile(rf"\.({_OF_RANK.pattern})\.[0-9]+\.tmp")


class Results(Generic[R]):
    """A folder of results that survives kill -9 and a full disk.

    Every write replaces whole files by renaming, so `results.jsonl` and `results.csv` can be read
    at any moment and hold every row that was added. One process at a time may write; the first
    write (or `open`) takes the lock, `close` (or the end of a `with` block, or of the process)
    gives it back.

    Args:
        folder: The output folder; made when it does not exist.
        row: The kind of rows that it keeps: `Row` (of sweeps) or `TransferRow`.

    Attributes:
        folder: The output folder.
        unverified: After `open` has found a run to continue: the ``optional`` settings that it
            could not compare, since one of the two runs does not know them.

    Raises:
        FailureError: The folder cannot be made or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Results(folder) as results:
        ...     resumed = results.open({"model": "torchvision:resnet18", "p_prune": [0.0, 0.5]})
        ...     rows = results.rows()
        >>> resumed, rows
        (False, [])
    """

    @overload
    def __init__(self: "Results[Row]", folder: str | os.PathLike[str]) -> None: ...
    @overload
    def __init__(self, folder: str | os.PathLike[str], row: type[R]) -> None: ...
    def __init__(self, folder: str | os.PathLike[str], row: type[Any] = Row) -> None:
        self._row: type[R] = row
        self.folder = Path(folder)
        self.unverified: list[str] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise FailureError(
                f"cannot write results to {self.folder}: it is a file; give a folder as ",
                Argument("output"),
            ) from None
        except OSError as error:
            raise write_failure(self.folder, error) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise FailureError(
                f"cannot write results to {self.folder}: permission denied; give another ",
                Argument("output"),
            )
        self._lock = FolderLock(self.folder / LOCK)

    def open(
        self,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        growing: Collection[str] = (),
        optional: Collection[str] = (),
    ) -> bool:
        """Take the folder for one configuration.

        Args:
            config: What is going to be run; anything that JSON can hold (paths become text).
            overwrite: Remove the results, configuration and progress that are there first.
            growing: Names of lists in ``config`` that may have gained entries since: the rows of
                what was asked for before still count.
            optional: Names of settings in ``config`` that are compared as far as both this run and
                the one that is there know them: not where one lacks them or has None for them.

        Returns:
            True when the folder held this very configuration, or one that it grew from, so that the
            run continues; compare `rows` with what is wanted to see what is left. False when it
            starts afresh.

        Raises:
            InvalidArgumentError: The folder holds the results of another configuration.
            FailureError: Another process writes here, or the disk is full.
        """
        self._lock.acquire()
        left = filter(None, (_LEFT_BY_RANK.fullmatch(each.name) for each in self.folder.iterdir()))
        names = (JSONL, CSV, CONFIG, PROGRESS, *(each[1] for each in left))
        remove_leftovers(self.folder, names)
        wanted = plain(dict(config))
        if overwrite:
            self._clear()
        resumed = self._holds(wanted, growing, optional)
        if resumed:
            # A kill between the two renames, or another tool's torn line, leaves the two files
            # one row apart: bring them together.
            rows = [self._row.renamed(each) for each in read_jsonl(self.folder / JSONL)]
            if rows or (self.folder / CSV).exists():
                self._write(rows)
        text = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
        if _content(self.folder / CONFIG) != text.encode():
            replace_files({self.folder / CONFIG: text.encode()})
        return resumed

    def rows(self) -> list[R]:
        """The rows on disk, in the order in which they were added."""
        path = self.folder / JSONL
        return to_rows(self._row, read_jsonl(path), path)

    def add(self, row: R) -> None:
        """Put one row on disk; see `add_all`."""
        self.add_all([row])

    def add_all(self, rows: Iterable[R]) -> None:
        """Put rows on disk, all of them or none; they are there when this returns.

        A row that asks for the same thing as an earlier one (`key`) takes its place, so that
        finishing a pass twice does not count it twice.

        Raises:
            FailureError: The disk is full, or the folder cannot be written; the earlier rows are
                intact.
        """
        self._lock.acquire()
        path = self.folder / JSONL
        values = read_jsonl(path)
        keys = [row.key for row in to_rows(self._row, values, path)]
        held = dict(zip(keys, map(self._row.renamed, values), strict=True))
        held |= {row.key: row.as_dict() for row in rows}
        self._write(list(held.values()))

    def save_progress(self, progress: Mapping[str, Any], *, rank: int = 0) -> None:
        """Keep what an unfinished run has counted so far, in place of what was kept before.

        Args:
            progress: what was counted.
            rank: whose it is. Each rank of a run has a file of its own, in the folder that rank 0
                has opened and locked for all.

        Raises:
            FailureError: The disk is full, or the folder cannot be written; the earlier progress
                is intact.
        """
        if rank == 0:
            self._lock.acquire()
        text = json.dumps(progress)
        name = f"progress-{rank}.json" if rank else PROGRESS
        replace_files({self.folder / name: text.encode()})

    def load_progress(self) -> dict[str, Any] | None:
        """What `save_progress` kept, or None; also None when another tool broke the file.

        Progress only saves time: without it the run starts again and gives the same rows. A broken
        file is told of in a warning.
        """
        return self._load_progress(PROGRESS)

    def load_progress_of_ranks(self) -> list[dict[str, Any]]:
        """What `save_progress` kept, rank 0's first; of broken files as `load_progress`."""
        found = (self._load_progress(name) for name in (PROGRESS, *self._progress_of_ranks()))
        return [each for each in found if each is not None]

    def merge_progress(self, progress: Mapping[str, Any]) -> None:
        """Keep this in the place of what several ranks had counted, if several had.

        A kill on the way leaves both the sum and its parts, of which the sum is loaded first.
        """
        others = self._progress_of_ranks()
        if others:
            self.save_progress(progress)
        for name in others:
            self._remove(name)

    def distrust_progress(self, reason: OSError | ValueError, name: str = PROGRESS) -> None:
        """Warn that the progress cannot be used, so that the pass starts again."""
        warnings.warn(
            f"{self.folder / name} cannot be used ({getattr(reason, 'strerror', reason)}): "
            "what had not become a row is measured again",
            stacklevel=3,
        )

    def clear_progress(self) -> None:
        """Forget the progress of all ranks: the run has ended and its rows are on disk."""
        self._lock.acquire()
        for name in (PROGRESS, *self._progress_of_ranks()):
            self._remove(name)

    def close(self) -> None:
        """Let others write here; safe to call twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _holds(
        self, wanted: dict[str, Any], growing: Collection[str], optional: Collection[str]
    ) -> bool:
        found = read_config(self.folder / CONFIG)
        present = None if found is None else self._row.renamed(found)
        if present is None:
            if (self.folder / JSONL).exists():
                raise InvalidArgumentError(
                    f"{self.folder} holds results without {CONFIG}, so they cannot be continued;"
                    " give another ",
                    Argument("output"),
                    ", or ",
                    Argument("overwrite", True),
                )
            return False
        differing = differences(present, wanted, growing, optional)
        if differing and not self._has_work():
            return False  # a run that ended before it had anything to lose
        if differing:
            raise InvalidArgumentError(
                f"{self.folder} holds results of another configuration ({'; '.join(differing)});"
                " give another ",
                Argument("output"),
                ", or ",
                Argument("overwrite", True),
            )
        self.unverified = [name for name in optional if not compared(present, wanted, name)]
        return True

    def _has_work(self) -> bool:
        for name in (PROGRESS, *self._progress_of_ranks()):
            with contextlib.suppress(OSError, BrokenJSONError):
                if self._read_progress(name) is not None:
                    return True
        return bool(read_jsonl(self.folder / JSONL))

    def _load_progress(self, name: str) -> dict[str, Any] | None:
        try:
            return self._read_progress(name)
        except (OSError, BrokenJSONError) as error:
            self.distrust_progress(error, name)
            return None

    def _read_progress(self, name: str) -> dict[str, Any] | None:
        try:
            return parse_object(read_regular(self.folder / name))
        except FileNotFoundError:
            return None

    def _progress_of_ranks(self) -> list[str]:
        """The names of the files that ranks other than 0 have left."""
        names = (path.name for path in self.folder.iterdir())
        return sorted(name for name in names if _OF_RANK.fullmatch(name))

    def _clear(self) -> None:
        # The configuration goes last: rows never lie beside a configuration that is not theirs.
        for name in (PROGRESS, *self._progress_of_ranks(), CSV, JSONL, CONFIG):
            self._remove(name)

    def _remove(self, name: str) -> None:
        path = self.folder / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_failure(path, error) from error

    def _write(self, rows: list[dict[str, Any]]) -> None:
        contents = {
            self.folder / JSONL: jsonl_text(rows).encode(errors="backslashreplace"),
            self.folder / CSV: csv_text(rows, self._row.columns()).encode(errors="replace"),
        }
        # What is right already is left alone: finished results can be shown from a full disk.
        stale = {path: new for path, new in contents.items() if _content(path) != new}
        if stale:
            replace_files(stale)


def _content(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except OSError:
        return None
