"""Text that others wrote, made fit to be stored and to be quoted in an error."""

import re

_LONGEST = 60
# What Python makes of the bytes of a file name that are no UTF-8, and other halves of characters.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Control characters, of which terminals obey some, and what turns the direction of reading.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def storable(text: str) -> str:
    r"""Text that UTF-8 can hold: a byte of a file name that is no UTF-8 is written ``\xNN``.

    Example:
        >>> import os
        >>> storable(os.fsdecode(b"caf\xe9"))
        'caf\\xe9'
    """
    return _SURROGATE.sub(_escaped, text)


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
        # The repr of very long text would be made in vain.
        text = repr(value[: longest + 1])
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**longest:
        text = f"a number of more than {longest} digits"  # Python refuses to write the longest
    else:
        text = repr(value)
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def printable(text: str) -> str:
    """Text without control characters and halves of characters, which are written as escapes."""
    return storable(_CONTROL.sub(_escaped, text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
