"""JSON that somebody else wrote."""

import os
from pathlib import Path

import pytest

from secateurs import FailureError
from secateurs._io.json_objects import BrokenJSONError, parse, parse_object, read_object_file


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
    ],
)
def test_json_that_only_strict_reading_refuses(text: bytes) -> None:
    with pytest.raises(BrokenJSONError, match=r"^it (names|holds)"):
        parse_object(text, strict=True)
    assert list(parse_object(text)) == ["a"]


def test_surrogate_pairs_are_read() -> None:
    assert parse(b'"\\ud83d\\ude00"', strict=True) == "\U0001f600"


REFUSED = {
    b"": "Expecting value",
    b"[]": "is not an object",
    b"{": "Expecting property name",
    b'{"\xff": 1}': "byte 2 is no UTF-8",
    b"9" * 9999: "thousands of digits",
    b'{"a":' + b"[" * 99_999: "nested too deeply",
    b'{"a":' + b"[" * 60 + b"]" * 60 + b"}": "nested too deeply",
    b'{"a": [' + b"," * 4_000_001: "more than 4,000,000 parts",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
@pytest.mark.parametrize("strict", [True, False])
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: bytes, strict: bool) -> None:
    with pytest.raises(BrokenJSONError, match=REFUSED[text]):
        parse_object(text, strict=strict)
    (tmp_path / "c").write_bytes(text)
    with pytest.raises(FailureError, match=f"c as a configuration: .*{REFUSED[text]}"):
        read_object_file(tmp_path / "c", strict=strict)


def test_pipes_folders_and_absent_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    others = {"pipe": "it is a pipe", ".": "it is a folder"}
    for name, why in others.items():
        with pytest.raises(FailureError, match=f"as an index: {why}"):
            read_object_file(tmp_path / name, "as an index")
    with pytest.raises(FailureError, match=r"^there is no file .*absent to read as an index$"):
        read_object_file(tmp_path / "absent", "as an index")


def test_a_name_that_no_file_can_have_is_one_that_does_not_exist() -> None:
    with pytest.raises(FailureError, match=r"^there is no file a\\x00b to read"):
        read_object_file("a\0b")
