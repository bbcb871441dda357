"""From a file, or an image of PIL, to 8-bit pixels: nothing else is run, and nothing is clipped."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateurs._io.regular_files import open_regular

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""What is read, whatever the suffix says; for others that PIL knows it runs programs."""

LARGEST = 2**26
"""Pixels of an image that is to be resized, 200 MB in RGB."""

# Tags of TIFF, and their values: how pixels are stored.
_BITS, _ZERO_IS, _SAMPLE_FORMAT = 258, 262, 339
_WHITE, _SIGNED = 0, 2

_SIXTEEN_BITS = ("PNG", "PPM")  # whose mode "I" holds 16 bits; that of TIFF holds anything


def read_image(path: Path, mode: str, formats: tuple[str, ...] = FORMATS) -> "Image.Image":
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
    from PIL import Image, UnidentifiedImageError

    with open_regular(path) as file:
        try:
            image = Image.open(file, formats=formats)
        except UnidentifiedImageError:
            raise OSError(f"it is no {', '.join(formats)} image") from None
        with image:
            return to_mode(image, mode)


def to_mode(image: "Image.Image", mode: str) -> "Image.Image":
    """Convert an image to 8 bits a channel, where PIL would cut off what is above 255.

    Of 16 (in TIFF also 12) bits the upper 8 are taken, as PIL does with 16-bit RGB.

    Args:
        image: of any mode.
        mode: ``RGB`` or ``L``.

    Raises:
        ValueError: the pixels are numbers of which nobody knows what is white.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF alone
    signed = _SIGNED in _numbers(tags.get(_SAMPLE_FORMAT, 1))
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS)
    if signed or (image.mode in ("I", "F") and not sixteen):
        kind = "signed" if signed else "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(
            f"it has {kind} pixels, of which nobody knows what is white: save it with 8 or 16 bits,"
            " from 0 up"
        )
    if not sixteen:
        return image.convert(mode)
    from PIL import Image

    levels: Any = np.asarray(image)
    upper = (levels >> _numbers(tags.get(_BITS, 16))[0] - 8).astype(np.uint8)
    # PIL turns 8-bit pixels round where 0 is white, but not these.
    return Image.fromarray(255 - upper if tags.get(_ZERO_IS) == _WHITE else upper).convert(mode)


def _numbers(tag: Any) -> tuple[int, ...]:
    """A tag of a TIFF, which has one number a channel, or one alone."""
    return tuple(tag) if isinstance(tag, tuple | list) else (tag,)


def check_shape(image: "Image.Image", edge: float) -> None:
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
