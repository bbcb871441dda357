"""JSON and names that somebody else wrote."""

from pathlib import Path

import pytest

from secateurs import FailureError
from secateurs._untrusted import (
    MalformedError,
    quoted,
    read_json_file,
    read_object,
    shortened,
)


@pytest.mark.parametrize(
    "text", [b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}']
)
def test_what_is_read_in_configurations_alone(text: bytes) -> None:
    with pytest.raises(MalformedError, match=r"^its text (names|holds)"):
        read_object(text, "its text")
    assert list(read_object(text, strict=False)) == ["a"]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'{"a": "\\ud800"}', b'{"\xff": 1}', b"9" * 9999, b'{"a":' + b"[" * 99_999],
    ids=range(7),
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_no_object_of_text(tmp_path: Path, text: bytes, strict: bool) -> None:
    with pytest.raises(MalformedError, match="not JSON"):
        read_object(text, strict=strict)
    (tmp_path / "c").write_bytes(text)
    with pytest.raises(FailureError, match="c as a configuration: it is not JSON"):
        read_json_file(tmp_path / "c", strict=strict)


def test_quotes_are_short_and_printable() -> None:
    assert quoted("a\x1b[31m\n") == "'a\\x1b[31m\\n'"
    assert quoted("x" * 99, 5) == "'xxxxx...'"
    assert shortened("two\nlines \x1b[0m") == "two lines \\x1b[0m"
    assert shortened("x" * 500, 9) == "x" * 9 + "..."
    assert shortened("\u202e right").isprintable()
