"""Text from outside (names of files, models, tensors) made safe to show."""

import unicodedata


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
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(map(_shown, shown))


def _shown(letter: str) -> str:
    # Spaces of other widths count as not printable, and do no harm.
    if letter.isprintable() or unicodedata.category(letter) in ("Zs", "Co"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")
