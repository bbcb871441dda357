"""Folders of images with their labels in a table: ``DIR/labels.csv`` or ``DIR/images.csv``."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from secateurs._io.regular_files import read_regular
from secateurs._io.text import one_line, quoted
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.zoo.classes import LARGEST_LABEL, imagenet_offset, numbered_classes
from secateurs.zoo.images import Item, Listing
from secateurs.zoo.loaded_model import LoadedModel

LABELS, COMPATIBLE = "labels.csv", "images.csv"
_LONGEST = 250  # characters of a file's name without its suffix, the limit of file systems


def read_label_table(
    folder: Path, model: LoadedModel | None, *, skip_corrupt: bool = False
) -> Listing:
    """List the images of ``DIR/labels.csv``, in its order.

    It has the columns ``image`` (a file below DIR) and ``label`` (a class counted from 0). With
    ``skip_corrupt``, missing images are left to the data set, which skips and counts them.

    Raises:
        InvalidArgumentError: a column is missing, a label is no class, or an image leads out of
            the folder or is listed twice.
        FailureError: images are missing, or the table cannot be read.
    """
    table = folder / LABELS
    labels: dict[Path, int] = {}
    for row in _rows(table, ("image", "label")):
        name = row.text("image")
        path = PurePosixPath(name)
        if not name.strip() or set(name) & {"\0", "\\"} or path.is_absolute() or ".." in path.parts:
            raise row.refused("image", f"a file below {folder}")
        if folder / name in labels:
            raise row.wrong(f"{quoted(name)} is listed twice: remove one of the rows")
        labels[folder / name] = row.whole("label", 0, LARGEST_LABEL, "a class counted from 0")
    _check_images(table, list(labels), skip_corrupt=skip_corrupt)
    classes, indices = numbered_classes(labels.values(), model, str(folder))
    return Listing([Item(path, indices[label]) for path, label in labels.items()], "all", classes)


def read_compatible(
    folder: Path, model: LoadedModel | None, *, skip_corrupt: bool = False
) -> Listing:
    """List ``DIR/images.csv`` with ``DIR/images/ID.png``, in the order of the file.

    The layout of the NIPS 2017 competition's images: columns ImageId, TrueLabel and TargetClass,
    both classes of ImageNet counted from 1, with or without a background class before them in the
    model. ``skip_corrupt`` is as for `read_label_table`.

    Raises:
        InvalidArgumentError: a column is missing, a label is out of range, an image is listed
            twice, or there are no rows.
        FailureError: images are missing, or the csv cannot be read.
    """
    table = folder / COMPATIBLE
    offset = imagenet_offset(model, str(folder)) - 1
    paths: list[Path] = []
    items: list[Item] = []
    targets: list[int] = []
    lines: dict[str, int] = {}
    kind = "a class of ImageNet from 1 to 1000"
    for row in _rows(table, ("ImageId", "TrueLabel"), ", TargetClass (classes counted from 1)"):
        name = row.text("ImageId")
        if not name.strip() or len(name) > _LONGEST or set(name) & {"/", "\\", "\0"}:
            raise row.refused("ImageId", "the name of a file in images/ without .png")
        if lines.setdefault(name, row.line) != row.line:
            raise row.wrong(
                f"ImageId {quoted(name)} is in line {lines[name]} already: remove one of the two"
            )
        paths.append(folder / "images" / f"{name}.png")
        items.append(Item(paths[-1], row.whole("TrueLabel", 1, 1000, kind) + offset))
        if row.text("TargetClass"):
            targets.append(row.whole("TargetClass", 1, 1000, kind) + offset)
    _check_images(table, paths, skip_corrupt=skip_corrupt)
    return Listing(items, "test", None, targets if len(targets) == len(items) else None)


@dataclass(frozen=True)
class _Row:
    table: Path
    line: int
    values: Mapping[str, str | None]

    def text(self, column: str) -> str:
        return self.values.get(column) or ""

    def whole(self, column: str, least: int, most: int, kind: str) -> int:
        text = self.text(column)
        if not (len(text) < 10 and text.strip().isdecimal() and least <= int(text) <= most):
            raise self.refused(column, kind)
        return int(text)

    def refused(self, column: str, kind: str) -> InvalidArgumentError:
        return self.wrong(f"{column} must be {kind}, got {quoted(self.text(column))}")

    def wrong(self, why: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"{self.table}, line {self.line}: {why}")


def _rows(table: Path, columns: Sequence[str], further: str = "") -> Iterator[_Row]:
    try:
        text = read_regular(table).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header = list(reader.fieldnames or ())
        absent = [name for name in columns if name not in header]
        if absent:
            raise InvalidArgumentError(
                f"{table} has no column {' and '.join(absent)}: it needs "
                f"{', '.join(columns)}{further}"
            )
        twice = [name for name in (*columns, "TargetClass") if header.count(name) > 1]
        if twice:
            raise InvalidArgumentError(
                f"{table} has two columns {twice[0]}: remove the one that is not meant"
            )
        for values in reader:
            yield _Row(table, reader.line_num, values)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FailureError(f"cannot read {table}: {one_line(error)}") from error


def _check_images(table: Path, paths: Sequence[Path], *, skip_corrupt: bool) -> None:
    if not paths:
        raise InvalidArgumentError(f"no images in {table.parent}: {table.name} has no rows")
    absent = [path for path in paths if not skip_corrupt and not path.is_file()]
    if absent:
        raise FailureError(
            f"{len(absent)} of the {len(paths)} images in {table} are missing, first {absent[0]}: "
            "get them, or go on without them: ",
            Argument("skip_corrupt", True),
        )
