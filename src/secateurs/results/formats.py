"""Rows as lines of JSON and as csv."""

import contextlib
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from secateurs._text import printable
from secateurs.errors import FailureError


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; [] without the file; a torn last line is left out.

    Raises:
        FailureError: A line that is not the last one is broken.
    """
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        value: Any = None
        with contextlib.suppress(ValueError):
            value = json.loads(line)
        if isinstance(value, dict):
            rows.append(cast(dict[str, Any], value))
        elif number < len(lines):
            raise FailureError(
                f"row {number} of {path} is broken; remove that line, or use another --output"
            )
    return rows


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a csv file as text; a torn last row is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    if rows and None in rows[-1].values():  # torn: cells at the end are missing
        rows.pop()
    return rows


def csv_text(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    """The rows as csv; columns of a newer version are kept, behind ours."""
    extra = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({n: _shown(v) for n, v in row.items()} for row in rows)
    return text.getvalue()


def _shown(value: Any) -> Any:
    # What opens a csv shows it; results.jsonl keeps every name as it is. Lines are for the csv.
    if not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n")))


def jsonl_text(rows: list[dict[str, Any]]) -> str:
    """The rows as JSON, one object a line."""
    return "".join(_to_json_line(values) + "\n" for values in rows)


def _to_json_line(values: Mapping[str, Any]) -> str:
    """One line of JSON without a newline; JSON has no NaN, so it is written as text."""
    safe = {name: _finite(value) for name, value in values.items()}
    return json.dumps(safe, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    # float() reads all three words back.
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
