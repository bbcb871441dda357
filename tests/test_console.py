import contextlib
import os
import sys
from pathlib import Path

import pytest

from secateurs._console import make_console, say

NO_SIZES = ["0", "-3", "abc", "", "1", "19", "2001", "99999999999", "²", "٨٠", "8 0", "80.0"]


@pytest.mark.parametrize("columns", NO_SIZES)
def test_an_invalid_size_is_80(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    assert make_console().width == make_console(stderr=True).width == 80


@pytest.mark.parametrize("columns", [20, 79, 200, 2000])
def test_a_size_is_taken(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert make_console().width == columns


def test_names_in_lines_are_made_safe(capsys: pytest.CaptureFixture[str]) -> None:
    say("one \x1b[2J\nand [bold]no[/] other")
    assert capsys.readouterr().err == "one \\x1b[2J\\nand [bold]no[/] other\n"


@pytest.mark.parametrize("how", ["pipe", "closed", "none", "full"])
def test_a_line_that_cannot_be_printed_stops_nothing(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "full" and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w") if how != "full" else open("/dev/full", "w")  # noqa: PTH123, SIM115
    if how == "closed":
        stream.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None if how == "none" else stream)
        say("words")
    with contextlib.suppress(OSError):
        stream.close()
