"""Text from outside, made safe to show."""

import pytest

from hostile import HIDDEN, NAMES
from secateurs._io.text import listed, printable, quoted, shortened


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_invisible_characters_become_escapes(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable() and not HIDDEN.search(shown)
    assert shown.encode() and printable(shown) == shown
    assert shown.startswith("[bold" if name.startswith("[") else "conv")


@pytest.mark.parametrize(
    "name", ["größe", "模型.weight", "C:\\new\\table", "a b", "a\u3000b", "👍", "é"]
)
def test_visible_characters_stay(name: str) -> None:
    assert printable(name) == name


def test_different_names_stay_different() -> None:
    assert len({printable(name) for name in NAMES.values()}) == len(NAMES)


def test_messages_of_others_become_one_short_printable_line() -> None:
    assert shortened("two\nlines \x1b[0m") == "two lines \\x1b[0m"
    assert shortened("x" * 500, 9) == "xxxxxxxx…"
    assert shortened("\u202e right").isprintable()


def test_quotes_are_short_and_printable() -> None:
    assert quoted("a\x1b[31m\n") == "'a\\x1b[31m\\n'"
    assert quoted("x" * 99, 5) == "'xxx…"
    assert quoted(["x" * 99, "\u202e"], 5) == "['xx…"
    assert quoted([10**5000]) == "a list that cannot be shown"


def test_the_first_names_are_listed_and_the_others_counted() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abcde") == "a, b, c and 2 more"
