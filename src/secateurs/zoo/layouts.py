"""The two folder layouts that data may have, each read into a list of images with labels."""

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.checkpoint import one_line
from secateurs.zoo.classes import class_indices, imagenet_offset
from secateurs.zoo.images import Item
from secateurs.zoo.loaded import LoadedModel

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)
UNDERSTOOD = (
    "understood are DIR/val/CLASS/*.JPEG, DIR/CLASS/*.JPEG, and DIR/images.csv with "
    "DIR/images/ID.png"
)
_HELD_OUT = ("val", "validation")
_COLUMNS = ("ImageId", "TrueLabel", "TargetClass")


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        items: in a fixed order.
        split: which part of the data this is.
        classes: the class folders in sorted order, or None for the ImageNet-Compatible layout.
        targets: for each item the class that a targeted attack aims at, or None.
    """

    items: list[Item]
    split: str
    classes: list[str] | None
    targets: list[int] | None = None


def is_compatible(folder: Path) -> bool:
    """Whether ``folder`` has the ImageNet-Compatible layout."""
    return (folder / "images.csv").is_file()


def read_class_folders(folder: Path, split: str | None, model: LoadedModel | None) -> Listing:
    """List ``DIR/SPLIT/CLASS/*`` or ``DIR/CLASS/*``, sorted by class, then by path.

    Files below deeper folders of a class count too; hidden files and folders do not. Other files
    than images are passed over.

    Args:
        folder: DIR.
        split: a sub-folder of DIR; None for ``val`` or ``validation`` where there is one, else DIR.
        model: whose answers the class folders stand for, see `class_indices`.

    Raises:
        InvalidArgumentError: no such split, no images, or an unknown class folder.
        FailureError: a folder cannot be read.
    """
    root, name = _split_folder(folder, split)
    subfolders = _subfolders(root)
    present = [path.name for path in subfolders]
    if split is None and present and set(present) <= {"train", "test"}:
        raise InvalidArgumentError(
            f"{root} has no val folder but {' and '.join(present)}: "
            f"give {subfolders[0]} as the data"
        )
    files = {path.name: sorted(_images(path)) for path in subfolders}
    names = [each for each, found in files.items() if found]
    if not names:
        raise InvalidArgumentError(f"no images in {root}: {_hint(root)}")
    indices = class_indices(names, model, folders=list(files))
    items = [Item(path, indices[each]) for each in names for path in files[each]]
    return Listing(items, name, names)


def read_compatible(
    folder: Path, model: LoadedModel | None, *, skip_corrupt: bool = False
) -> Listing:
    """List ``DIR/images.csv`` with ``DIR/images/ID.png``, in the order of the file.

    The layout of the NIPS 2017 competition's images: columns ImageId, TrueLabel and TargetClass,
    both classes of ImageNet counted from 1.

    Args:
        folder: DIR.
        model: must have ImageNet's answers; one with a background class is understood.
        skip_corrupt: leave missing images to the data set, which skips and counts them.

    Raises:
        InvalidArgumentError: a column is missing, a label is out of range, or there are no rows.
        FailureError: images are missing, or the csv cannot be read.
    """
    table = folder / "images.csv"
    offset = imagenet_offset(model, str(folder))
    items: list[Item] = []
    targets: list[int] = []
    for line, row in _rows(table):
        path = folder / "images" / f"{row['ImageId']}.png"
        items.append(Item(path, _label(table, line, row, "TrueLabel") + offset))
        if row.get("TargetClass"):
            targets.append(_label(table, line, row, "TargetClass") + offset)
    if not items:
        raise InvalidArgumentError(f"no images in {folder}: {table.name} has no rows")
    if not skip_corrupt:
        _check_present(table, items)
    return Listing(items, "test", None, targets if len(targets) == len(items) else None)


def _split_folder(folder: Path, split: str | None) -> tuple[Path, str]:
    if split is not None:
        if not (folder / split).is_dir():
            present = [path.name for path in _subfolders(folder)]
            raise InvalidArgumentError(
                f"{folder} has no folder {split!r} (it has {', '.join(present[:6]) or 'none'}): "
                "name one of its folders as the split, or leave split out"
            )
        return folder / split, split
    for name in _HELD_OUT:
        if (folder / name).is_dir():
            return folder / name, name
    return folder, folder.name if folder.name in (*_HELD_OUT, "train", "test") else "all"


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    except OSError as error:
        raise FailureError(f"cannot read the folder {folder}: {error.strerror}") from error


def _images(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def _refuse(error: OSError) -> None:
    raise FailureError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _hint(root: Path) -> str:
    loose = any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir())
    return f"put the images into one folder a class; {UNDERSTOOD}" if loose else UNDERSTOOD


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            absent = [name for name in _COLUMNS[:2] if name not in (reader.fieldnames or ())]
            if absent:
                raise InvalidArgumentError(
                    f"{table} has no column {' and '.join(absent)}: it needs "
                    f"{', '.join(_COLUMNS)} (classes counted from 1)"
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FailureError(f"cannot read {table}: {one_line(error)}") from error


def _label(table: Path, line: int, row: Mapping[str, str], column: str) -> int:
    text = row[column] or ""
    if not (text.strip().isdecimal() and 1 <= int(text) <= 1000):
        raise InvalidArgumentError(
            f"{table}, line {line}: {column} must be a class of ImageNet from 1 to 1000, "
            f"got {text!r}"
        )
    return int(text) - 1


def _check_present(table: Path, items: list[Item]) -> None:
    folder = table.parent / "images"
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    absent = [
        item.source
        for item in items
        if isinstance(item.source, Path) and item.source.name not in present
    ]
    if absent:
        raise FailureError(
            f"{len(absent)} of the {len(items)} images in {table} are missing, first {absent[0]}: "
            "get them, or go on without them: --skip-corrupt"
        )
