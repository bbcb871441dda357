"""Images that are in two data sets, known by their contents."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from secateurs._io.regular_files import read_regular
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.zoo.images import ImageDataset, decoded


def refuse_same_images(calibration: ImageDataset, scored: ImageDataset) -> None:
    """Refuse calibration images that are scored, too.

    Files are compared with files by their bytes, and with images of other data sets by their
    pixels. Of the scored files only those of the size of a calibration image are read.
    """
    files = {s: n for n, s in enumerate(_sources(calibration)) if isinstance(s, Path)}
    sizes = {size for path in files if (size := _size(path)) is not None}
    contents = {_digest_of_file(path): number for path, number in files.items()}
    pixels: dict[str | None, int] = {}
    if not all(isinstance(source, Path) for source in _sources(scored)):
        pixels = {_digest_of_pixels(calibration, i): i for i in range(len(calibration))}
    for index, source in enumerate(_sources(scored)):
        number = None
        if not isinstance(source, Path):
            number = pixels.get(_digest_of_pixels(scored, index))
        elif source in files:
            number = files[source]
        elif _size(source) in sizes:
            number = contents.get(_digest_of_file(source))
        if number is not None:
            raise InvalidArgumentError(
                f"the calibration image {calibration.name_of(number)} is scored, too (as "
                f"{scored.name_of(index)}): give other images as ",
                Argument("calibration"),
                ", or leave it out there, since a network must not be measured on what repaired it",
            )


def _sources(data: ImageDataset) -> Iterator[object]:
    return (item.source for item in data.items)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # reading the image reports it
        return None


def _digest_of_file(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_regular(path)).hexdigest()
    except OSError:
        return str(path)  # equals no other file


def _digest_of_pixels(data: ImageDataset, index: int) -> str | None:
    try:
        image = decoded(data.items[index].source, data.preprocess.image_mode)
    except Exception:  # any error of PIL, or of another data set; it is raised where it is read
        return f"image {id(data)} {index}"  # equals no other image
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
