"""Read and write rows as JSON lines and as csv."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.regular_files import read_if_there, read_regular, reading
from secateurs.errors import FailureError
from secateurs.results.record import Record

R = TypeVar("R", bound=Record)

_MARK = b"\xef\xbb\xbf"  # editors put this byte order mark before UTF-8
# Spreadsheets run such a cell as a formula, unless an apostrophe before it marks it as text. A cell
# that already begins with apostrophes gets one more, so that reading removes exactly that one.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_WORDS = {"NaN", "Infinity", "-Infinity"}  # numbers that JSON does not know


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; [] without the file.

    A last line that is incomplete, without a newline, is left out.

    Raises:
        FailureError: Another line is broken, or the file cannot be read.
    """
    content = (read_if_there(path) or b"").removeprefix(_MARK)
    lines = [line for line in content.split(b"\n") if line.strip()]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_object(line))
        except BrokenJSONError as error:
            if number < len(lines) or content.endswith(b"\n"):
                raise FailureError(
                    f"row {number} of {path} is broken ({error}); remove that line"
                ) from None
    return rows


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a csv file as text; an incomplete last row is left out.

    Raises:
        FailureError: The file is no csv in UTF-8, a row has more cells than the header, or the file
            cannot be read.
    """
    with reading(path):
        content = read_regular(path)
    try:
        text = content.decode("utf-8-sig")
        rows: list[dict[Any, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
    except UnicodeDecodeError as error:
        raise FailureError(
            f"cannot read {path}: byte {error.start} is no UTF-8; save it as UTF-8, or read "
            "results.jsonl"
        ) from error
    except csv.Error as error:
        raise FailureError(f"cannot read {path} ({error}); read results.jsonl") from error
    if rows and None in rows[-1].values():  # incomplete: cells at the end are missing
        rows.pop()
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise FailureError(
                f"row {number} of {path} has more cells than there are columns; read results.jsonl"
            )
    # Of any other row with too few cells, the missing ones are None; `to_rows` refuses it.
    return [
        {name: _unmarked(cell) for name, cell in row.items() if cell is not None} for row in rows
    ]


def to_rows(kind: type[R], values: Sequence[Mapping[str, Any]], path: Path) -> list[R]:
    """Make rows of the values that were read.

    Args:
        kind: The kind of rows.
        values: What the file holds.
        path: The file, for the error.

    Raises:
        FailureError: One of them is not of this kind; the error says which.
    """
    rows: list[R] = []
    for number, each in enumerate(values, start=1):
        try:
            rows.append(kind.from_dict(each))
        except FailureError as error:
            raise FailureError(f"row {number} of {path}: {error}") from error
    return rows


def csv_text(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    """The rows as csv; columns of a newer version come after this version's."""
    extra = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in columns]
    lines = [[*columns, *map(_marked, extra)]]
    lines += [[_marked(_finite(row.get(name, ""))) for name in (*columns, *extra)] for row in rows]
    return "".join(map(_to_csv_line, lines))


def jsonl_text(rows: list[dict[str, Any]]) -> str:
    """The rows as JSON, one object a line."""
    return "".join(_to_json_line(values) + "\n" for values in rows)


def _to_json_line(values: Mapping[str, Any]) -> str:
    """One line of JSON without a newline; JSON has no NaN, so it is written as text."""
    safe = {name: _finite(value) for name, value in values.items()}
    return json.dumps(safe, ensure_ascii=False, allow_nan=False)


def _to_csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    # With "\r" in the terminator, a cell with a carriage return is quoted, too.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _finite(value: Any) -> Any:
    # Also inside lists and objects, which columns of another version may hold.
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_finite(part) for part in cast(list[Any], value)]
    # float() reads all three words back.
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _marked(value: Any) -> Any:
    if isinstance(value, str) and value not in _WORDS and _FORMULA.match(value):
        return f"'{value}"
    return value


def _unmarked(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
