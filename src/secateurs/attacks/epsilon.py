"""Read an epsilon: a share of the pixel range, which runs from 0 to 1."""

import math
import re

from secateurs._io.text import quoted
from secateurs._validation import as_real
from secateurs.errors import Argument, InvalidArgumentError

# With 0.5 every image can become the same flat grey: more says nothing about a network.
_LARGEST = 0.5
# A smaller change is lost when pixels are rounded to 256 levels.
_SMALLEST_EPSILON = 0.5 / 255
_FRACTION = re.compile(r"([^/]+)/([^/]+)")


def parse_epsilon(value: float | str, *, name: str = "eps") -> float:
    """Read an epsilon or a step size as a share of the pixel range.

    Pixels run from 0 to 1, so 16 of 255 grey levels are 16/255, about 0.063. A number of grey
    levels is refused, and so are values that are surely mistakes: more than 0.5, with which every
    image can become the same flat grey, and an epsilon below half a grey level, which is lost when
    pixels are rounded to 8 bits.

    Args:
        value: such as ``"16/255"``, ``"0.0627"``, ``16 / 255`` or ``0.06``.
        name: the argument's name, for errors. A step size, ``name="alpha"``, may be as small as
            you like.

    Returns:
        A number above 0, at most 0.5.

    Raises:
        InvalidArgumentError: it is not a number, or not a plausible one.

    Example:
        >>> parse_epsilon("51/255"), parse_epsilon(0.06)
        (0.2, 0.06)
        >>> parse_epsilon(16)
        Traceback (most recent call last):
        ...
        secateurs.errors.InvalidArgumentError: eps is a share of the pixel range, which runs from 0
        to 1, got 16; for 16 of 255 grey levels write 16/255
    """
    number = _number(value, name)
    if number >= 1:
        levels = f"; for {number:g} of 255 grey levels write {number:g}/255" if number < 255 else ""
        raise InvalidArgumentError(
            Argument(name),
            f" is a share of the pixel range, which runs from 0 to 1, got {value}{levels}",
        )
    if number <= 0:
        raise InvalidArgumentError(Argument(name), f" must be above 0, such as 16/255; got {value}")
    if number > _LARGEST:
        raise InvalidArgumentError(
            Argument(name),
            f" must be at most {_LARGEST}, with which every image can become the same flat "
            f"grey, got {value}; the field's usual value is 16/255",
        )
    if name == "eps" and number < _SMALLEST_EPSILON:
        raise InvalidArgumentError(
            Argument("eps"),
            f" is less than half of one of 255 grey levels, got {value}: is it divided by 255 "
            "twice? Write such as 16/255 or 0.06",
        )
    return number


def _number(value: object, name: str) -> float:
    number = _read(value) if isinstance(value, str) else as_real(value)
    if number is None or not math.isfinite(number):
        raise InvalidArgumentError(
            Argument(name), f" must be a number or a fraction such as 16/255, got {quoted(value)}"
        )
    return number


def _read(text: str) -> float | None:
    """The number that a text such as ``16/255`` or ``0.06`` writes; None if it writes none."""
    fraction = _FRACTION.fullmatch(text.strip())
    over, under = fraction.groups() if fraction else (text, "1")
    try:
        return float(over) / float(under)
    except (ValueError, ZeroDivisionError):
        return None
