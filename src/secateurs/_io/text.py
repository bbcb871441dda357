"""Makes text from outside (names of files, models, tensors) safe to show, store and quote."""

import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 60
# Unpaired surrogates, such as Python makes of bytes in file names that are not UTF-8.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Write invisible characters as escapes, such as ``\x1b`` or ``\u202e``.

    These are control characters (also tabs, newlines and a terminal's escape), marks that change
    the direction of writing or have no width, and unpaired surrogates (bytes of a path that are
    not UTF-8). All other text stays as it is. Thus a row of a table stays one line, file names
    cannot control a terminal, and an SVG is valid XML.

    Example:
        >>> printable("conv\x1b[2J.weight"), printable("größe 大")
        ('conv\\x1b[2J.weight', 'größe 大')
    """
    shown = storable(str(text))
    if shown.isprintable():
        return shown
    return "".join(map(_shown, shown))


def _shown(letter: str) -> str:
    # Spaces of other widths and private characters are not printable for Python, but harmless.
    if letter.isprintable() or unicodedata.category(letter) in ("Zs", "Co"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def storable(text: str) -> str:
    r"""Make text encodable as UTF-8: a byte of a file name that is not UTF-8 becomes ``\xNN``.

    Example:
        >>> import os
        >>> storable(os.fsdecode(b"caf\xe9"))
        'caf\\xe9'
    """
    return text if text.isascii() else _SURROGATE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def one_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty, or the name of its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def shortened(text: str, longest: int = 160) -> str:
    """Make a message of another library, also of several lines, one short printable line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(value: object, longest: int = _LONGEST) -> str:
    """Show a value in an error: as Python writes it, in one short printable line.

    Example:
        >>> quoted("x" * 100_000, 10)
        "'xxxxxxxx…"
    """
    if isinstance(value, str):
        text = repr(value[: longest + 1])  # the rest of a very long text would be cut anyway
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**longest:
        text = f"a number of more than {longest} digits"  # Python refuses to write very long ones
    else:
        try:
            text = printable(repr(value))
        except Exception:  # of whatever somebody's class raises
            text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Args:
        number: How many.
        noun: In the singular.
        plural: Default the noun with an s.

    Example:
        >>> counted(1, "image"), counted(2000, "image"), counted(0, "class", "classes")
        ('1 image', '2,000 images', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], shown: int = 3) -> str:
    """The first names, joined by commas, and how many more there are."""
    every = list(names)
    more = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {more:,} more" if more > 0 else "")
