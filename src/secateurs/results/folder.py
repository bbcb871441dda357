"""The output folder of a run: its rows, configuration and progress."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Self, overload

from secateurs._io.durable import remove_leftovers, replace_files, write_failure
from secateurs._io.json_objects import plain
from secateurs._io.regular_files import read_regular
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.results.config import OTHER_OUTPUT, compared, differences, read_config
from secateurs.results.formats import R, csv_text, jsonl_text, read_jsonl, to_rows
from secateurs.results.image_outcomes import OUTCOMES, outcomes_text
from secateurs.results.layer_row import LAYERS
from secateurs.results.progress_files import PROGRESS, ProgressFiles, is_of_another_rank
from secateurs.results.row import Row
from secateurs.results.run_command import COMMAND, command_text

JSONL = "results.jsonl"
CSV = "results.csv"
CONFIG = "config.json"


class Results(ProgressFiles, Generic[R]):
    """A folder of results that survives kill -9 and a full disk.

    Every write replaces whole files by renaming, so `results.jsonl` and `results.csv` can be read
    at any moment and hold every row that was added. One process at a time may write; `open` or the
    first write takes the lock, `close` or the end of a `with` block or of the process releases it.

    Args:
        folder: The output folder; made when it does not exist.
        row: The kind of rows that it keeps: `Row` (of sweeps) or `TransferRow`.

    Attributes:
        folder: The output folder.
        unverified: The ``optional`` settings of a continued run that `open` could not compare,
            since one of the two configurations has no value for them.

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
        super().__init__(Path(folder))
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

    def open(
        self,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        growing: Collection[str] = (),
        optional: Mapping[str, str] = MappingProxyType({}),
        begin: Callable[[], object] = lambda: None,
    ) -> bool:
        """Lock the folder, and write the configuration of the run into it.

        On the command line, the command is written, too (`secateurs.results.run_command`).

        Args:
            config: What is going to be run; anything that JSON can hold (paths become text).
            overwrite: First remove the results, configuration and progress of an earlier run.
            growing: Names of lists in ``config`` that may have more entries than in an earlier
                run, whose rows still count.
            optional: Names of settings in ``config`` that are compared only where this run and the
                earlier one have a value: neither lacks the setting nor has None; for each, what the
                error says if it differs.
            begin: Called for a new run before its configuration is written: it removes other files
                of an earlier run, with which the new one must not go on.

        Returns:
            True when the folder holds this configuration, or one with shorter ``growing`` lists,
            so that the run continues; `rows` are those that are finished. False for a new run.

        Raises:
            InvalidArgumentError: The folder holds the results of another configuration.
            FailureError: Another process writes here, or the disk is full.
        """
        self._lock.acquire()
        names = {JSONL, CSV, CONFIG, COMMAND, PROGRESS, OUTCOMES}
        remove_leftovers(
            self.folder, lambda name: name in names or is_of_another_rank(name), of_running=True
        )
        wanted = plain(dict(config))
        if overwrite:
            self._clear()
        resumed = self._holds(wanted, growing, optional)
        if not resumed:
            begin()
        else:
            # After a kill between the two renames, or an incomplete line of another tool, the two
            # files differ in one row: write both again.
            rows = [self._row.renamed(each) for each in read_jsonl(self.folder / JSONL)]
            if rows or (self.folder / CSV).exists():
                self._write(rows)
        texts = {CONFIG: json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"}
        command = command_text()
        if command is not None:
            texts[COMMAND] = command
        self._replace({name: text.encode() for name, text in texts.items()})
        return resumed

    def rows(self) -> list[R]:
        """The rows on disk, in the order of their addition."""
        path = self.folder / JSONL
        return to_rows(self._row, read_jsonl(path), path)

    def add(self, row: R) -> None:
        """Put one row on disk; see `add_all`."""
        self.add_all([row])

    def add_all(self, rows: Iterable[R]) -> None:
        """Put rows on disk, all of them or none; they are there when this returns.

        A row replaces an earlier one of the same `key`, so that work that was done twice does not
        count twice.

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

    def save_outcomes(self, outcomes: Mapping[str, Sequence[str]]) -> None:
        """Save which images were right (see `outcomes_text`), before the rows that count them."""
        self._lock.acquire()
        replace_files({self.folder / OUTCOMES: outcomes_text(outcomes).encode()})

    def close(self) -> None:
        """Release the lock; safe to call twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _holds(
        self, wanted: dict[str, Any], growing: Collection[str], optional: Mapping[str, str]
    ) -> bool:
        found = read_config(self.folder / CONFIG)
        if found is None:
            if (self.folder / JSONL).exists():
                raise InvalidArgumentError(
                    f"{self.folder} holds results without {CONFIG}, so they cannot be continued;",
                    *OTHER_OUTPUT,
                )
            return False
        present, wanted = self._row.renamed(found), self._row.renamed(wanted)
        differing = differences(present, wanted, growing, optional)
        if differing and not self._has_progress() and not read_jsonl(self.folder / JSONL):
            return False  # a run that ended before it saved anything
        if differing:
            raise InvalidArgumentError(
                f"{self.folder} holds results of another configuration ({'; '.join(differing)});",
                *OTHER_OUTPUT,
            )
        self.unverified = [name for name in optional if not compared(present, wanted, name)]
        return True

    def _clear(self) -> None:
        # The configuration last: rows must never be without theirs.
        left = (COMMAND, LAYERS, OUTCOMES, CSV, JSONL, CONFIG)
        for name in (*self._progress_names(), *left):
            self._remove(name)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self._replace(
            {
                JSONL: jsonl_text(rows).encode(errors="backslashreplace"),
                CSV: csv_text(rows, self._row.columns()).encode(errors="replace"),
            }
        )

    def _replace(self, contents: Mapping[str, bytes]) -> None:
        """Replace the files that change: finished results can be shown even on a full disk."""
        found = {self.folder / name: content for name, content in contents.items()}
        stale = {path: content for path, content in found.items() if _content(path) != content}
        if stale:
            replace_files(stale)


def _content(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except OSError:
        return None
