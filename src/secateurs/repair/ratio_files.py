"""Files that give the ratio of each layer: JSON or CSV."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

from secateurs._io.durable import replace_files
from secateurs._io.json_objects import read_object_file
from secateurs._io.regular_files import read_regular
from secateurs._io.text import quoted
from secateurs._validation import check_path, check_ratio
from secateurs.errors import FailureError, InvalidArgumentError

SUFFIXES = (".json", ".csv")


def read_ratios(path: str | os.PathLike[str]) -> dict[str, float]:
    r"""Read the ratio to prune of each layer, for `secateurs.repair.allocate`.

    Args:
        path: a ``.json`` file with one object, ``{"conv1": 0.5, "fc.weight": 0.9}``, or a ``.csv``
            file with two columns, the name and the ratio, with or without a header. Names are those
            of layers or of their parameters.

    Returns:
        The ratios by name, in the order of the file.

    Raises:
        InvalidArgumentError: it is a file of another kind, or a line is wrong; it is named.
        FailureError: the file cannot be read, or is no JSON.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("ratios.csv").write_text("layer,ratio\nconv1,0.5\nfc,0.9\n")
        >>> read_ratios("ratios.csv")
        {'conv1': 0.5, 'fc': 0.9}
    """
    file = check_path("allocation", path)
    kind = file.suffix.lower()
    if kind not in SUFFIXES:
        raise InvalidArgumentError(f"{file} is neither .json nor .csv: write the ratios as one")
    found = _of_json(file) if kind == ".json" else _of_csv(file)
    if not found:
        raise InvalidArgumentError(f"{file} gives no ratio: write a name and a ratio of each layer")
    return found


def write_ratios(path: str | os.PathLike[str], ratios: Mapping[str, float]) -> None:
    """Write the ratio of each layer to a file of JSON, which `read_ratios` reads.

    Raises:
        FailureError: the disk is full, or the file cannot be written.

    Example:
        >>> write_ratios("ratios.json", {"conv1.weight": 0.25, "fc.weight": 0.9})
        >>> read_ratios("ratios.json")
        {'conv1.weight': 0.25, 'fc.weight': 0.9}
    """
    text = json.dumps(dict(ratios), indent=2, ensure_ascii=False) + "\n"
    replace_files({check_path("path", path): text.encode()})


def _of_json(file: Path) -> dict[str, float]:
    # Strictly: of a name that is there twice, the first ratio would be lost.
    given = read_object_file(file, "as the ratios of layers", strict=True)
    return {
        name: check_ratio(f"the ratio of {quoted(name)} in {file}", one)
        for name, one in given.items()
    }


def _of_csv(file: Path) -> dict[str, float]:
    try:
        rows = list(csv.reader(read_regular(file).decode("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else error
        why = getattr(error, "strerror", None) or why
        raise FailureError(f"cannot read {file} as the ratios of layers: {why}") from None
    found: dict[str, float] = {}
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        try:
            name, ratio = cells
            value = float(ratio)
        except ValueError:
            if number == 1 and len(cells) == 2:
                continue  # the header
            raise InvalidArgumentError(
                f"line {number} of {file} must be a name and a ratio, such as conv1,0.5; got "
                f"{quoted(','.join(row))}"
            ) from None
        if name in found:
            raise InvalidArgumentError(
                f"line {number} of {file} names {quoted(name)} again: leave one out"
            )
        found[name] = check_ratio(f"the ratio in line {number} of {file}", value)
    return found
