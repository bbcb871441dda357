"""The two folder layouts of data; each is read into a list of images with labels."""

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from secateurs._io.regular_files import read_regular
from secateurs._io.text import printable, quoted
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.zoo.class_folder import IMAGE_SUFFIXES, ClassFolder, list_images
from secateurs.zoo.classes import class_indices, imagenet_offset
from secateurs.zoo.images import Item
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.weights_file import one_line

UNDERSTOOD = (
    "understood are DIR/val/CLASS/*.JPEG, DIR/CLASS/*.JPEG, DIR/images.csv with DIR/images/ID.png, "
    "DIR/labels.csv (image,label), and DIR/test.parquet (image, label)"
)
_HELD_OUT = ("val", "validation")
_SPLITS = {"train", "training", "test", "testing", "valid", "dev", "eval"}
_LONGEST = 250  # characters of a file's name without its suffix, the limit of file systems
_COLUMNS = ("ImageId", "TrueLabel", "TargetClass")


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        items: the images, in a fixed order.
        split: the name of the split.
        classes: the class folders in sorted order, or None for the ImageNet-Compatible layout.
        targets: for each image the class that a targeted attack aims at, or None.
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

    Files in sub-folders of a class are listed too; hidden files and folders are not. Other files
    than images are passed over. A warning says so if that leaves a class without images, or if
    they are images of another format. Links are followed; a file that several links lead to is
    listed once, with a warning.

    Args:
        folder: DIR.
        split: a sub-folder of DIR; None for ``val`` or ``validation`` if there is one, else DIR.
        model: the model whose classes the folders name, see `class_indices`.

    Raises:
        InvalidArgumentError: no such split, no images, an unknown class folder, or a file that
            links put into two classes.
        FailureError: a folder cannot be read, or is a broken link.
    """
    root, name = _split_folder(folder, split)
    subfolders = _subfolders(root)
    present = [path.name for path in subfolders]
    if split is None and present and set(present) <= _SPLITS:
        held_out = next((each for each in present if not each.startswith("train")), present[0])
        raise InvalidArgumentError(
            f"{root} has no val folder but {' and '.join(present)}: "
            f"give {root / held_out} as the data"
        )
    found = {path.name: list_images(path) for path in subfolders}
    names = [each for each, inside in found.items() if inside.images]
    if not names:
        raise InvalidArgumentError(f"no images in {root}: {_hint(root)}")
    _refuse_two_classes(found)
    indices = class_indices(names, model, folders=list(found))
    _warn_of_files_left_out(root, found)
    items = [Item(path, indices[each]) for each in names for path in found[each].images]
    return Listing(items, name, names)


def read_compatible(
    folder: Path, model: LoadedModel | None, *, skip_corrupt: bool = False
) -> Listing:
    """List ``DIR/images.csv`` with ``DIR/images/ID.png``, in the order of the file.

    The layout of the NIPS 2017 competition's images: columns ImageId, TrueLabel and TargetClass,
    both classes of ImageNet counted from 1.

    Args:
        folder: DIR.
        model: must have ImageNet's classes, with or without a background class.
        skip_corrupt: list missing images too; the data set skips and counts them.

    Raises:
        InvalidArgumentError: a column is missing, a label is out of range, an image is listed
            twice, or there are no rows.
        FailureError: images are missing, or the csv cannot be read.
    """
    table = folder / "images.csv"
    offset = imagenet_offset(model, str(folder))
    items: list[Item] = []
    targets: list[int] = []
    before: dict[str, int] = {}
    for line, row in _rows(table):
        path = folder / "images" / f"{_image_id(table, line, row, before)}.png"
        items.append(Item(path, _label(table, line, row, "TrueLabel") + offset))
        if row.get("TargetClass"):
            targets.append(_label(table, line, row, "TargetClass") + offset)
    if not items:
        raise InvalidArgumentError(f"no images in {folder}: {table.name} has no rows")
    if not skip_corrupt:
        _check_present(table, items)
    return Listing(items, "test", None, targets if len(targets) == len(items) else None)


def read_any_images(folder: Path, split: str | None) -> Listing:
    """List all images in a folder, however it is laid out, by their paths, without labels.

    Args:
        folder: DIR.
        split: a sub-folder of DIR; None for ``train`` if there is one, else DIR.

    Raises:
        InvalidArgumentError: no such split, or no images.
        FailureError: a folder cannot be read.
    """
    if split is None and (folder / "train").is_dir():
        split = "train"
    root, name = _split_folder(folder, split) if split else (folder, "all")
    items = [Item(path, 0) for path in list_images(root).images]
    if not items:
        raise InvalidArgumentError(
            f"no images in {root}: give a folder that holds some ({' '.join(IMAGE_SUFFIXES)})"
        )
    return Listing(items, name, None)


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
        visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        lost = [path for path in visible if path.is_symlink() and not path.exists()]
        folders = [path for path in visible if path.is_dir()]
    except OSError as error:
        raise FailureError(f"cannot read the folder {folder}: {error.strerror}") from error
    if lost:  # if it were left out, the classes after it would get other indices
        raise FailureError(
            f"{printable(str(lost[0]))} is a link that leads nowhere, where a class folder may be "
            "meant: mend or remove it"
        )
    return folders


def _refuse_two_classes(found: Mapping[str, ClassFolder]) -> None:
    owners: dict[str, Path] = {}
    for inside in found.values():
        for path, target in inside.images.items():
            other = owners.setdefault(target, path)
            if other is not path:
                raise InvalidArgumentError(
                    f"{printable(str(other))} and {printable(str(path))} are one file in two "
                    "classes: remove the link that leads from one class into the other"
                )


def _warn_of_files_left_out(root: Path, found: Mapping[str, ClassFolder]) -> None:
    links = [path for inside in found.values() for path in inside.repeated]
    if links:
        warnings.warn(
            f"{len(links)} link(s) in {printable(str(root))} lead to images that are there already,"
            f" first {printable(str(links[0]))}: each image is counted once",
            stacklevel=5,
        )
    unread = sum((inside.unread_images() for inside in found.values() if inside.images), Counter())
    if unread:
        warnings.warn(
            f"{unread.total()} image(s) in {printable(str(root))} are not read "
            f"({_counted(unread)}); understood are {' '.join(IMAGE_SUFFIXES)}",
            stacklevel=5,
        )
    empty = {each: inside for each, inside in found.items() if not inside.images}
    for each, inside in empty.items():
        if inside.passed_over:
            warnings.warn(
                f"class folder {quoted(each)} counts as empty: of its files "
                f"({_counted(inside.passed_over)}) none is read; understood are "
                f"{' '.join(IMAGE_SUFFIXES)}",
                stacklevel=5,
            )


def _counted(suffixes: Counter[str]) -> str:
    return ", ".join(f"{number} {printable(suffix)}" for suffix, number in suffixes.most_common(3))


def _hint(root: Path) -> str:
    loose = any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir())
    return f"put the images into one folder a class; {UNDERSTOOD}" if loose else UNDERSTOOD


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        text = io.StringIO(read_regular(table).decode("utf-8-sig"), newline="")
        reader = csv.DictReader(text)
        header = list(reader.fieldnames or ())
        absent = [name for name in _COLUMNS[:2] if name not in header]
        if absent:
            raise InvalidArgumentError(
                f"{table} has no column {' and '.join(absent)}: it needs "
                f"{', '.join(_COLUMNS)} (classes counted from 1)"
            )
        twice = [name for name in _COLUMNS if header.count(name) > 1]
        if twice:
            raise InvalidArgumentError(
                f"{table} has two columns {twice[0]}: remove the one that is not meant"
            )
        for row in reader:
            yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FailureError(f"cannot read {table}: {one_line(error)}") from error


def _image_id(table: Path, line: int, row: Mapping[str, str], before: dict[str, int]) -> str:
    """The id of a row, which names a file and must be unique."""
    found = row["ImageId"] or ""
    if not found.strip() or len(found) > _LONGEST or "/" in found or "\\" in found or "\0" in found:
        raise InvalidArgumentError(
            f"{table}, line {line}: ImageId must be the name of a file in images/ without .png, "
            f"got {quoted(found)}"
        )
    if before.setdefault(found, line) != line:
        raise InvalidArgumentError(
            f"{table}, line {line}: ImageId {quoted(found)} is in line {before[found]} already: "
            "remove one of the two"
        )
    return found


def _label(table: Path, line: int, row: Mapping[str, str], column: str) -> int:
    text = row[column] or ""
    if not (len(text) < 100 and text.strip().isdecimal() and 1 <= int(text) <= 1000):
        raise InvalidArgumentError(
            f"{table}, line {line}: {column} must be a class of ImageNet from 1 to 1000, "
            f"got {quoted(text)}"
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
            "get them, or go on without them: ",
            Argument("skip_corrupt", True),
        )
