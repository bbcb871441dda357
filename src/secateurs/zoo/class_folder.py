"""List the images below one class folder, each once, even if several links lead to it."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from secateurs.errors import FailureError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_OTHER_IMAGES = {
    *(".gif", ".jfif", ".jpe", ".jp2", ".jxl", ".heic", ".heif", ".avif", ".tga", ".ico"),
    *(".dng", ".nef", ".cr2", ".exr", ".hdr", ".dcm"),
}


@dataclass
class ClassFolder:
    """The files below a class folder.

    Attributes:
        images: the resolved path of each image file, by its path, sorted.
        passed_over: the number of other files, by suffix.
        repeated: links to files or folders that are listed already.
    """

    images: dict[Path, str] = field(default_factory=dict[Path, str])
    passed_over: Counter[str] = field(default_factory=Counter[str])
    repeated: list[Path] = field(default_factory=list[Path])

    def unread_images(self) -> Counter[str]:
        """The number of images among the files that were passed over, by suffix."""
        return Counter({s: n for s, n in self.passed_over.items() if s in _OTHER_IMAGES})


def list_images(folder: Path) -> ClassFolder:
    """List the images below ``folder``, except hidden files and folders.

    Links are followed. Links to folders come last, so that a file that can be reached without a
    link is listed by that path. A file or folder that is reached twice is listed once, so a link to
    a folder that holds the link is no endless loop.
    """
    found = ClassFolder()
    files: list[tuple[bool, Path, str]] = []
    waiting, visited = [folder], set[str]()
    while waiting:
        for parent, folders, names in os.walk(waiting.pop(0), onerror=_refuse):
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


def _refuse(error: OSError) -> None:
    reason = error.strerror or error
    raise FailureError(f"cannot read the folder {error.filename}: {reason}") from error
