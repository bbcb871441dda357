"""Read the rows of a folder or file, of the kind that was asked for or of any."""

import os
from pathlib import Path
from typing import Any, overload

from secateurs.errors import Advice, InvalidArgumentError
from secateurs.results.budget_row import BudgetRow
from secateurs.results.folder import CONFIG, CSV, JSONL
from secateurs.results.formats import R, read_csv, read_jsonl, to_rows
from secateurs.results.record import Record
from secateurs.results.repair_row import RepairRow
from secateurs.results.retrain_row import RetrainRow
from secateurs.results.row import Row
from secateurs.results.rows import Rows
from secateurs.results.run_command import COMMAND
from secateurs.results.sensitivity_row import SensitivityRow
from secateurs.results.speed_row import SpeedRow
from secateurs.results.transfer_row import TransferRow

KINDS: tuple[type[Record], ...] = (
    *(TransferRow, RetrainRow, RepairRow, SpeedRow, SensitivityRow, BudgetRow, Row),
)
"""The kinds of rows that commands write."""


@overload
def read_rows(path: str | os.PathLike[str]) -> Rows[Row]: ...
@overload
def read_rows(path: str | os.PathLike[str], kind: type[R]) -> Rows[R]: ...
def read_rows(path: str | os.PathLike[str], kind: type[Any] = Row) -> Rows[Any]:
    """Read the results of one command; nothing is written.

    Args:
        path: An output folder, a .jsonl file or a .csv file.
        kind: The kind of rows, such as `TransferRow`; by default those of a sweep.

    Returns:
        The rows, in the order in which they were added; none from the folder of a run that has
        not finished a row yet.

    Raises:
        InvalidArgumentError: There are no results at `path`, or they are of another command.
        FailureError: A line is broken, or was not written by this version.
    """
    path = Path(path)
    rows = _load(path)
    for other in KINDS:
        if rows and other is not kind and _holds(other, rows[0]) and not _holds(kind, rows[0]):
            raise InvalidArgumentError(
                f"{path} holds rows of a {other.KIND}, not of a {kind.KIND}; read them with "
                "secateurs report",
                Advice(f", or read_rows(path, {other.__name__})"),
            )
    return Rows(to_rows(kind, rows, path / JSONL if path.is_dir() else path))


def read_any_rows(path: str | os.PathLike[str]) -> Rows[Any]:
    """Read the results of any command; nothing is written.

    Args:
        path: An output folder, a .jsonl file or a .csv file.

    Returns:
        The rows, of one kind; none from the folder of a run that has not finished a row yet.

    Raises:
        InvalidArgumentError: There are no results at `path`.
        FailureError: A line is broken, or was not written by this version.
    """
    kind = kind_of_rows(path)
    return Rows() if kind is None else read_rows(path, kind)


def kind_of_rows(path: str | os.PathLike[str]) -> type[Record] | None:
    """Which command wrote the rows of a folder or file; None where there are none yet.

    Raises:
        InvalidArgumentError: There are no results at `path`.
        FailureError: A line is broken.
    """
    values = _load(Path(path))
    if not values:
        return None
    return next((kind for kind in KINDS if _holds(kind, values[0])), Row)


def _holds(kind: type[Record], values: dict[str, Any]) -> bool:
    return kind.renamed(values).keys() >= set(kind.columns())


def _load(path: Path) -> list[dict[str, Any]]:
    file = path / JSONL if path.is_dir() else path
    is_run = any((path / name).is_file() for name in (CONFIG, COMMAND))
    if is_run and not os.path.lexists(file):
        return []
    if not file.is_file():
        where = path.resolve() if path == Path() else path
        raise InvalidArgumentError(
            f"no results at {where}; give the output folder of a sweep, a retraining or another "
            f"run, or its {JSONL} or {CSV}"
        )
    return read_csv(file) if file.suffix == ".csv" else read_jsonl(file)
