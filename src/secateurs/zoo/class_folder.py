"""The images below one class folder, each once, whatever links there are."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from secateurs.errors import FailureError

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
_OTHER_IMAGES = {
    *(".gif", ".jfif", ".jpe", ".jp2", ".jxl", ".heic", ".heif", ".avif", ".tga", ".ico"),
    *(".dng", ".nef", ".cr2", ".exr", ".hdr", ".dcm"),
}


@dataclass
class ClassFolder:
    """What lies below a class folder.

    Attributes:
        images: the image files, sorted by path, with the files that they really are.
        passed_over: how many other files there are, by suffix.
        repeated: links to what is there already.
    """

    images: dict[Path, str] = field(default_factory=dict[Path, str])
    passed_over: Counter[str] = field(default_factory=Counter[str])
    repeated: list[Path] = field(default_factory=list[Path])

    def unread_images(self) -> Counter[str]:
        """How many of the files that were passed over are images all the same, by suffix."""
        return Counter({s: n for s, n in self.passed_over.items() if s in _OTHER_IMAGES})


def look_into(folder: Path) -> ClassFolder:
    """List the images below ``folder``; hidden files and folders do not count.

    Links are followed, to folders after everything else, so that what is reached without a link
    keeps the path that it has. A file or folder that is reached twice counts once, so a link to a
    folder that holds it ends nowhere.

    Raises:
        FailureError: a folder cannot be read.
    """
    found = ClassFolder()
    files: list[tuple[bool, Path, str]] = []
    waiting, links = [(folder, os.path.realpath(folder))], list[Path]()
    visited: set[str] = set()
    while waiting or links:
        if not waiting:
            link = links.pop(0)
            waiting.append((link, os.path.realpath(link)))
        path, real = waiting.pop(0)
        if real in visited:
            found.repeated.append(path)
            continue
        visited.add(real)
        for entry in _entries(path):
            there = path / entry.name
            if _is_folder(entry):
                if entry.is_symlink():
                    links.append(there)
                else:
                    waiting.append((there, os.path.join(real, entry.name)))  # noqa: PTH118
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                linked = entry.is_symlink()
                target = os.path.realpath(there) if linked else os.path.join(real, entry.name)  # noqa: PTH118
                files.append((linked, there, target))
            else:
                found.passed_over[there.suffix.lower() or "no suffix"] += 1
    _keep_once(files, found)
    return found


def _keep_once(files: list[tuple[bool, Path, str]], found: ClassFolder) -> None:
    """Of several paths to one file the one that is no link, or the first."""
    kept: dict[str, Path] = {}
    for _, path, target in sorted(files):
        if target in kept:
            found.repeated.append(path)
        else:
            kept[target] = path
    found.images = dict(sorted((path, target) for target, path in kept.items()))


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise FailureError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no folder, and an image that cannot be read
        return False
