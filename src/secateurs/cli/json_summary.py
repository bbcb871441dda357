"""The outcome of a command, as one line of JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs._io.json_objects import read_object_file
from secateurs.results import Record, RetrainRow, TransferRow, read_any_rows
from secateurs.results.formats import jsonl_text

BUDGET = "budget.json"
"""Name of the file that a budget writes into its folder."""


def summary_line(command: str, folder: Path) -> str:
    """One line with the command, the folder, its files, and the rows that are its outcome.

    Of a retraining these are the scores on test images, or all rows where it has none; of a
    transfer the rows of the last step, without the outcome of each image; of a budget what
    budget.json holds.
    """
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if command == "budget":
        rows = [read_object_file(folder / BUDGET)]
    else:
        rows = [_shown(row) for row in outcome_rows(read_any_rows(folder))]
    return jsonl_text([{"command": command, "folder": str(folder), "files": files, "rows": rows}])


def outcome_rows(rows: Sequence[Record]) -> Sequence[Record]:
    """The rows that are the outcome of a run."""
    scores = [row for row in rows if isinstance(row, RetrainRow) and row.split != "validation"]
    if scores:
        return scores
    steps = [row.step for row in rows if isinstance(row, TransferRow)]
    return [row for row in rows if not isinstance(row, TransferRow) or row.step == max(steps)]


def _shown(row: Record) -> dict[str, Any]:
    return {name: value for name, value in row.as_dict().items() if not name.endswith("_hits")}
