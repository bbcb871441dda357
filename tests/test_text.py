"""Text from outside, made safe to show."""

from secateurs._text import quoted, shortened


def test_messages_of_others_become_one_short_printable_line() -> None:
    assert shortened("two\nlines \x1b[0m") == "two lines \\x1b[0m"
    assert shortened("x" * 500, 9) == "xxxxxxxx…"
    assert shortened("\u202e right").isprintable()


def test_quotes_are_short_and_printable() -> None:
    assert quoted("a\x1b[31m\n") == "'a\\x1b[31m\\n'"
    assert quoted("x" * 99, 5) == "'xxx…"
    assert quoted(["x" * 99, "\u202e"], 5) == "['xx…"
