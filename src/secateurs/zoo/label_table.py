"""A folder of images whose labels stand in a table beside them: ``DIR/labels.csv``."""

import csv
import io
from pathlib import Path, PurePosixPath

from secateurs._io.regular_files import read_regular
from secateurs._io.text import quoted
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.zoo.classes import match_labels
from secateurs.zoo.folder_layouts import Listing
from secateurs.zoo.images import Item
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.weights_file import one_line

TABLE = "labels.csv"
_COLUMNS = ("image", "label")
_LARGEST = 10**6


def has_label_table(folder: Path) -> bool:
    """Whether ``folder`` has this layout."""
    return (folder / TABLE).is_file()


def read_label_table(
    folder: Path, model: LoadedModel | None, *, skip_corrupt: bool = False
) -> Listing:
    """List the images of ``DIR/labels.csv``, in its order.

    Args:
        folder: DIR; its table has the columns ``image`` (a file below DIR) and ``label`` (a class
            counted from 0).
        model: whose answers the labels stand for.
        skip_corrupt: leave missing images to the data set, which skips and counts them.

    Raises:
        InvalidArgumentError: a column is missing, a label is no class, or an image leads out of
            the folder or is listed twice.
        FailureError: images are missing, or the table cannot be read.
    """
    table = folder / TABLE
    paths: dict[Path, int] = {}
    for line, name, label in _rows(table):
        path = folder / name
        if path in paths:
            raise InvalidArgumentError(
                f"{table}, line {line}: {quoted(name)} is listed twice: remove one of the rows"
            )
        paths[path] = label
    if not paths:
        raise InvalidArgumentError(f"no images in {folder}: {TABLE} has no rows")
    absent = [path for path in paths if not skip_corrupt and not path.is_file()]
    if absent:
        raise FailureError(
            f"{len(absent)} of the {len(paths)} images in {table} are missing, first {absent[0]}: "
            "get them, or go on without them: ",
            Argument("skip_corrupt", True),
        )
    count = model.num_classes if model is not None else None
    classes = [str(each) for each in range(max(count or 0, max(paths.values()) + 1))]
    indices = match_labels(classes, model, str(folder))
    return Listing([Item(path, indices[label]) for path, label in paths.items()], "all", classes)


def _rows(table: Path) -> list[tuple[int, str, int]]:
    rows: list[tuple[int, str, int]] = []
    try:
        text = read_regular(table).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        absent = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise InvalidArgumentError(
                f"{table} has no column {' and '.join(absent)}: it needs {', '.join(_COLUMNS)}"
            )
        for row in reader:
            name, label = row["image"] or "", row["label"] or ""
            rows.append((reader.line_num, _inside(table, reader.line_num, name),
                         _label(table, reader.line_num, label)))  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FailureError(f"cannot read {table}: {one_line(error)}") from error
    return rows


def _inside(table: Path, line: int, name: str) -> str:
    path = PurePosixPath(name)
    if not name.strip() or "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts:
        raise InvalidArgumentError(
            f"{table}, line {line}: image must name a file below {table.parent}, got {quoted(name)}"
        )
    return name


def _label(table: Path, line: int, text: str) -> int:
    if not (len(text) < 10 and text.strip().isdecimal() and int(text) < _LARGEST):
        raise InvalidArgumentError(
            f"{table}, line {line}: label must be a class counted from 0, got {quoted(text)}"
        )
    return int(text)
