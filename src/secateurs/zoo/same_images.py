"""Images that are in two data sets, known by their pixels or their files."""

import hashlib
import os
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from secateurs._io.regular_files import open_regular
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.zoo.data import LoadedData
from secateurs.zoo.decoding import open_image, to_mode
from secateurs.zoo.images import ImageDataset

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]


def refuse_same_images(calibration: ImageDataset, scored: ImageDataset) -> None:
    """Refuse calibration images that are scored, too; see `same_images`.

    Raises:
        InvalidArgumentError: there is one; it is named.
    """
    for number, index in same_images(calibration, scored):
        raise InvalidArgumentError(
            f"the calibration image {calibration.name_of(number)} is scored, too (as "
            f"{scored.name_of(index)}): give other images as ",
            Argument("calibration"),
            ", or leave it out there, since a network must not be measured on what repaired it",
        )


def same_images(calibration: ImageDataset, scored: ImageDataset) -> Iterator[tuple[int, int]]:
    """The images of both data sets, as pairs of their numbers in either.

    Images are the same where all pixels are, whatever their files are called and however they are
    compressed. Of the scored files only those with the width and height of a calibration image are
    decoded.
    """
    known: dict[bytes, list[int]] = {}
    sizes: set[Size] = set()
    for number in range(len(calibration)):
        image = _decoded(calibration, number)
        if image is not None:
            known.setdefault(_digest(image), []).append(number)
            sizes.add(image.size)
    for index in range(len(scored)):
        image = _decoded(scored, index, sizes)
        for number in known.get(_digest(image), ()) if image is not None else ():
            yield number, index


def same_files(one: LoadedData, other: LoadedData) -> str | None:
    """What two data sets share, however it is spelt: a split as a whole, or else a file.

    Returns:
        Its name; None where they share nothing.
    """
    real = cache(os.path.realpath)
    if (real(one.name), one.split) == (real(other.name), other.split):
        return f"the split {one.split}"

    def files(data: LoadedData) -> set[Path]:
        paths = [each.source for each in data.dataset.items if isinstance(each.source, Path)]
        return {Path(real(path.parent), path.name) for path in paths}

    return next(map(str, sorted(files(one) & files(other))), None)


def _decoded(
    data: ImageDataset, index: int, sizes: Container[Size] | None = None
) -> "Image.Image | None":
    """An image, if it can be read and is of one of these sizes."""
    source, mode = data.items[index].source, data.preprocess.image_mode
    try:
        if not isinstance(source, Path):
            images, number = source
            return to_mode(images[number][0], mode)
        with open_regular(source) as file, open_image(file) as image:
            return to_mode(image, mode) if sizes is None or image.size in sizes else None
    except Exception:  # any error of PIL, or of another data set; it is raised where it is read
        return None


def _digest(image: "Image.Image") -> bytes:
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
