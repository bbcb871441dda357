"""Text from outside (names of files, models, tensors) made safe to show, store and quote."""

import re
import unicodedata

_LONGEST = 60
# What Python makes of the bytes of a file name that are no UTF-8, and other halves of characters.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Show what a reader cannot see as Python would write it, such as ``\x1b`` or ``\u202e``.

    Control characters (also tabs, newlines and the start of a terminal's commands), marks that
    reverse the direction of writing or have no width, and halves of surrogate pairs (bytes of a
    path that are not UTF-8) come out as escapes. All other text stays as it is, so that a table
    keeps one line a row, a terminal obeys nobody's file names, and an SVG is valid XML.

    Example:
        >>> printable("conv\x1b[2J.weight"), printable("größe 大")
        ('conv\\x1b[2J.weight', 'größe 大')
    """
    shown = storable(str(text))
    if shown.isprintable():
        return shown
    return "".join(map(_shown, shown))


def _shown(letter: str) -> str:
    # Spaces of other widths count as not printable, and do no harm.
    if letter.isprintable() or unicodedata.category(letter) in ("Zs", "Co"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def storable(text: str) -> str:
    r"""Text that UTF-8 can hold: a byte of a file name that is no UTF-8 is written ``\xNN``.

    Example:
        >>> import os
        >>> storable(os.fsdecode(b"caf\xe9"))
        'caf\\xe9'
    """
    return text if text.isascii() else _SURROGATE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def shortened(text: str, longest: int = 160) -> str:
    """One printable line of what somebody else says, such as another library's error.

    Args:
        text: line breaks become spaces.
        longest: characters; the rest is cut off.
    """
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(value: object, longest: int = _LONGEST) -> str:
    """A value as an error quotes it: in one line, printable, and short.

    Args:
        value: text is put in quotation marks, all else is shown as Python writes it.
        longest: characters; the rest is cut off.

    Example:
        >>> quoted("x" * 100_000, 10)
        "'xxxxxxxx…"
    """
    if isinstance(value, str):
        text = repr(value[: longest + 1])  # that of very long text would be made in vain
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**longest:
        text = f"a number of more than {longest} digits"  # Python refuses to write the longest
    else:
        text = printable(repr(value))
    return text if len(text) <= longest else text[: longest - 1] + "…"
