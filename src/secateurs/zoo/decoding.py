"""Decode image files, and images of PIL, to 8-bit pixels; runs no programs, clips no values."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from secateurs._io.regular_files import open_regular

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""The formats that are read, as PIL names them, whatever the suffix is; for some others it runs
programs."""

LARGEST = 2**26
"""The most pixels of a resized image, 200 MB in RGB."""

# Tags of TIFF that describe pixels, and their values.
_BITS, _ZERO_IS, _SAMPLE_FORMAT = 258, 262, 339
_WHITE, _SIGNED = 0, 2

_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode "I" holds 16 bits; in TIFF it may hold more


def read_image(path: Path, mode: str) -> "Image.Image":
    """Read an image file.

    As in torchvision and timm, the orientation that a camera wrote into the file (EXIF) is ignored,
    and of several frames the first one is taken. ``mode`` is as for `to_mode`.

    Raises:
        OSError: the file cannot be read, or is of none of `FORMATS`.
        Exception: any error that PIL raises for a damaged file.
    """
    with open_regular(path) as file, open_image(file) as image:
        return to_mode(image, mode)


def open_image(file: BinaryIO) -> "Image.Image":
    """Open an image of one of `FORMATS`, whose pixels are read later."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(f"it is no {', '.join(FORMATS)} image") from None


def to_mode(image: "Image.Image", mode: str) -> "Image.Image":
    """Convert an image to 8 bits per channel.

    Of 16 bits (in TIFF also 12) the upper 8 are taken, as PIL does for 16-bit RGB; in other modes
    PIL would clip values at 255.

    Args:
        image: an image of any mode.
        mode: ``RGB`` or ``L``.

    Raises:
        ValueError: the pixels are numbers, and it is unknown which number is white.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF alone
    signed = _SIGNED in _numbers(tags.get(_SAMPLE_FORMAT, 1))
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS)
    if signed or (image.mode in ("I", "F") and not sixteen):
        kind = "signed" if signed else "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(
            f"it has {kind} pixels, and it is unknown which number is white: save it with 8 or 16 "
            "bits, from 0 up"
        )
    if not sixteen:
        return image.convert(mode)
    from PIL import Image

    levels: Any = np.asarray(image)
    upper = (levels >> _numbers(tags.get(_BITS, 16))[0] - 8).astype(np.uint8)
    # Where 0 is white, PIL inverts 8-bit pixels, but not these.
    return Image.fromarray(255 - upper if tags.get(_ZERO_IS) == _WHITE else upper).convert(mode)


def _numbers(tag: Any) -> tuple[int, ...]:
    """The numbers of a TIFF's tag, which has one for each channel, or one for all."""
    return tuple(tag) if isinstance(tag, tuple | list) else (tag,)


def check_shape(image: "Image.Image", edge: float) -> None:
    """Refuse an image that would become enormous when its shorter side is resized to ``edge``."""
    short, long = sorted(image.size)
    pixels = edge * edge * long / max(short, 1)
    if pixels > LARGEST:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, and would have {pixels:.3g} with its "
            f"shorter side resized to {edge:.0f}"
        )
