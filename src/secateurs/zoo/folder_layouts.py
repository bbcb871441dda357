"""Folders of images, with one folder for each class or without labels."""

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from secateurs._io.text import printable, quoted
from secateurs.errors import Advice, Argument, FailureError, InvalidArgumentError
from secateurs.zoo.classes import class_indices
from secateurs.zoo.images import Item, Listing
from secateurs.zoo.loaded_model import LoadedModel

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_UNREAD_IMAGES = {
    *(".gif", ".jfif", ".jpe", ".jp2", ".jxl", ".heic", ".heif", ".avif", ".tga", ".ico"),
    *(".dng", ".nef", ".cr2", ".exr", ".hdr", ".dcm"),
}
UNDERSTOOD = (
    "understood are DIR/val/CLASS/*.JPEG, DIR/CLASS/*.JPEG, DIR/images.csv with DIR/images/ID.png, "
    "DIR/labels.csv (image,label), and DIR/test.parquet (image, label)"
)
_HELD_OUT = ("val", "validation")
_BESIDE_OTHERS = ("valid", "test")  # alone they may be classes
_SPLITS = {"train", "training", "test", "testing", "valid", "dev", "eval"}


@dataclass
class ClassFolder:
    """The files below a class folder.

    Attributes:
        images: by the path of each image file, sorted, the file to which links lead from there.
        passed_over: the number of other files, by suffix.
        repeated: links to files or folders that are listed already.
    """

    images: dict[Path, str] = field(default_factory=dict[Path, str])
    passed_over: Counter[str] = field(default_factory=Counter[str])
    repeated: list[Path] = field(default_factory=list[Path])


def read_class_folders(folder: Path, split: str | None, model: LoadedModel | None) -> Listing:
    """List ``DIR/SPLIT/CLASS/*`` or ``DIR/CLASS/*``, sorted by class, then by path.

    Without ``split`` it is ``val`` or ``validation``, if there is such a folder, or ``valid``, or
    ``test``, beside other splits. The folders name classes of ``model``, see `class_indices`.

    Files in sub-folders of a class are listed too; hidden files and folders are not. Other files
    than images are passed over. A warning says so if that leaves a class without images, or if
    they are images of another format. Links are followed; a file that several links lead to is
    listed once, with a warning.

    Raises:
        InvalidArgumentError: no such split, no images, an unknown class folder, or a file that
            links put into two classes.
        FailureError: a folder cannot be read, or is a broken link.
    """
    root, name = _split_folder(folder, split)
    subfolders = _subfolders(root)
    present = [path.name for path in subfolders]
    if split is None and present and set(present) <= _SPLITS:
        own = next((each for each in _BESIDE_OTHERS if each in present), None)
        if own is not None:
            return read_class_folders(folder, own, model)
        held_out = next((each for each in present if not each.startswith("train")), present[0])
        raise InvalidArgumentError(
            f"{root} has no val folder but {' and '.join(present)}: "
            f"give {root / held_out} as the data"
        )
    found = {path.name: _list_images(path) for path in subfolders}
    names = [each for each, inside in found.items() if inside.images]
    if not names:
        loose = any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir())
        hint = "put the images into one folder a class; " if loose else ""
        raise InvalidArgumentError(f"no images in {root}: {hint}{UNDERSTOOD}")
    _refuse_two_classes(found)
    indices = class_indices(names, model, folders=list(found))
    _warn_of_files_left_out(root, found)
    items = [Item(path, indices[each]) for each in names for path in found[each].images]
    return Listing(items, name, names)


def read_any_images(folder: Path, split: str | None) -> Listing:
    """List all images in a folder, however it is laid out, by their paths, without labels.

    ``split`` is a sub-folder; None means ``train`` if there is one, else the whole folder.

    Raises:
        InvalidArgumentError: no such split, or no images.
        FailureError: a folder cannot be read.
    """
    if split is None and (folder / "train").is_dir():
        split = "train"
    root, name = _split_folder(folder, split) if split else (folder, "all")
    items = [Item(path, 0) for path in _list_images(root).images]
    if not items:
        raise InvalidArgumentError(
            f"no images in {root}: give a folder that holds some ({' '.join(IMAGE_SUFFIXES)})"
        )
    return Listing(items, name, None)


def _list_images(folder: Path) -> ClassFolder:
    """List the images below ``folder``, except hidden files and folders.

    Links are followed. Links to folders come last, so that a file that can be reached without a
    link is listed by that path. A file or folder that is reached twice is listed once, so a link to
    a folder that holds the link is no endless loop.
    """
    found = ClassFolder()
    files: list[tuple[bool, Path, str]] = []
    waiting, visited = [folder], set[str]()
    while waiting:
        for parent, folders, names in os.walk(waiting.pop(0), onerror=_refuse_unreadable):
            path, real = Path(parent), os.path.realpath(parent)
            if real in visited:
                found.repeated.append(path)
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += filter(Path.is_symlink, map(path.joinpath, folders))
            for name in sorted(names):
                if name.startswith("."):
                    continue
                inside = path / name
                if name.lower().endswith(IMAGE_SUFFIXES):
                    linked = inside.is_symlink()
                    target = os.path.realpath(inside) if linked else str(Path(real, name))
                    files.append((linked, inside, target))
                else:
                    found.passed_over[inside.suffix.lower() or "no suffix"] += 1
    kept: dict[str, Path] = {}
    for _, path, target in sorted(files):  # a path that is no link comes before links
        if kept.setdefault(target, path) is not path:
            found.repeated.append(path)
    found.images = dict(sorted((path, target) for target, path in kept.items()))
    return found


def _refuse_unreadable(error: OSError) -> NoReturn:
    reason = error.strerror or error
    raise FailureError(f"cannot read the folder {error.filename}: {reason}") from error


def _split_folder(folder: Path, split: str | None) -> tuple[Path, str]:
    if split is not None:
        if not (folder / split).is_dir():
            present = [path.name for path in _subfolders(folder)]
            raise InvalidArgumentError(
                f"{folder} has no folder {split!r} (it has {', '.join(present[:6]) or 'none'}): "
                "name one of its folders as ",
                Argument("split"),
                Advice(", or leave split out"),  # some commands have a default of their own
            )
        return folder / split, split
    for name in _HELD_OUT:
        if (folder / name).is_dir():
            return folder / name, name
    return folder, folder.name if folder.name in (*_HELD_OUT, *_BESIDE_OTHERS, "train") else "all"


def _subfolders(folder: Path) -> list[Path]:
    try:
        visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        lost = [path for path in visible if path.is_symlink() and not path.exists()]
        folders = [path for path in visible if path.is_dir()]
    except OSError as error:
        _refuse_unreadable(error)
    if lost:  # if it were left out, the classes after it would get other indices
        raise FailureError(
            f"{printable(lost[0])} is a link that leads nowhere, where a class folder may be "
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
                    f"{printable(other)} and {printable(path)} are one file in two "
                    "classes: remove the link that leads from one class into the other"
                )


def _warn_of_files_left_out(root: Path, found: Mapping[str, ClassFolder]) -> None:
    said: list[str] = []
    links = [path for inside in found.values() for path in inside.repeated]
    if links:
        said.append(
            f"{len(links)} link(s) in {printable(root)} lead to images that are there already,"
            f" first {printable(links[0])}: each image is counted once"
        )
    others = sum((each.passed_over for each in found.values() if each.images), Counter[str]())
    unread = Counter({suffix: others[suffix] for suffix in others.keys() & _UNREAD_IMAGES})
    if unread:
        said.append(
            f"{unread.total()} image(s) in {printable(root)} are not read "
            f"({_counted(unread)}); understood are {' '.join(IMAGE_SUFFIXES)}"
        )
    said += (
        f"class folder {quoted(each)} counts as empty: of its files "
        f"({_counted(inside.passed_over)}) none is read; understood are {' '.join(IMAGE_SUFFIXES)}"
        for each, inside in found.items()
        if not inside.images and inside.passed_over
    )
    for message in said:
        warnings.warn(message, stacklevel=5)


def _counted(suffixes: Counter[str]) -> str:
    return ", ".join(f"{number} {printable(suffix)}" for suffix, number in suffixes.most_common(3))
