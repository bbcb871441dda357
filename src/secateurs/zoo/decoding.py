"""From a file, or an image of PIL, to 8-bit pixels: nothing else is run, and nothing is clipped."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from secateurs._files import open_regular

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""What is read, whatever the suffix says; for others that PIL knows it runs programs."""

LARGEST = 2**26
"""Pixels of an image that is to be resized, 200 MB in RGB."""

_SIXTEEN_BITS = ("PNG", "PPM")  # whose mode "I" holds 16 bits; that of TIFF holds anything


def read_image(path: Path, mode: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Read an image file.

    As torchvision and timm do, the orientation that a camera wrote beside the pixels (EXIF) is not
    looked at, and of several frames the first one is taken.

    Args:
        path: a regular file.
        mode: as `to_mode`.
        formats: names of PIL's that may be in it.

    Raises:
        OSError: the file cannot be read, or is of no such format.
        Exception: whatever PIL makes of a damaged file.
    """
    with open_regular(path) as file:
        try:
            image = Image.open(file, formats=formats)
        except UnidentifiedImageError:
            raise OSError(f"it is no {', '.join(formats)} image") from None
        with image:
            return to_mode(image, mode)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to 8 bits a channel, where PIL would cut off what is above 255.

    Of 16 bits the upper 8 are taken, as PIL does with 16-bit RGB.

    Args:
        image: of any mode.
        mode: ``RGB`` or ``L``.

    Raises:
        ValueError: the pixels are numbers of which nobody knows what is white.
    """
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS)
    if sixteen:
        levels: Any = np.asarray(image)
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(
            f"it has {kind} pixels, of which nobody knows what is white: save it with 8 or 16 bits"
        )
    return image.convert(mode)


def check_shape(image: Image.Image, edge: float) -> None:
    """Refuse an image that would become enormous when its shorter side is resized.

    Args:
        image: not yet resized.
        edge: what the shorter side becomes, in pixels.

    Raises:
        ValueError: it would have more than `LARGEST` pixels.
    """
    short, long = sorted(image.size)
    pixels = edge * edge * long / max(short, 1)
    if pixels > LARGEST:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, and would have {pixels:.3g} with its "
            f"shorter side resized to {edge:.0f}"
        )
