import builtins
import io
import re
import sys

import pytest

from secateurs._progress import bytes_text, progress_bar


def test_without_a_terminal_a_line_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Sweeping", 20_000, per=10, every=0.0) as bar:
        bar.skip(5_000)  # of an earlier run: they say nothing about the speed
        assert capsys.readouterr().err == ""
        bar.advance(10)
    said = capsys.readouterr().err
    found = re.fullmatch(
        r"Sweeping: 501 of 2,000 images \(25%\), (\S+) a second, (.+) left\n", said
    )
    assert found is not None, said


@pytest.mark.parametrize(
    ("unit", "total", "pattern"),
    [
        ("image steps", 30, r"Work: 3 of 30 image steps \(10%\), \S+ a second, .+ left\n"),
        ("bytes", 3000, r"Work: 3 B of 3\.0 kB \(0%\), [\d.]+ [kM]?B a second, .+ left\n"),
        ("bytes", None, r"Work: 3 B, [\d.]+ [kM]?B a second\n"),
        ("images", None, r"Work: 3 images, \S+ a second\n"),
    ],
)
def test_it_counts_in_its_unit(
    capsys: pytest.CaptureFixture[str], unit: str, total: int | None, pattern: str
) -> None:
    with progress_bar("Work", total, unit=unit, every=0.0) as bar:  # type: ignore[arg-type]
        bar.advance(3)
    assert re.fullmatch(pattern, capsys.readouterr().err)


def test_not_more_than_one_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Sweeping", 100) as bar:
        for _ in range(100):
            bar.advance(1)
    assert capsys.readouterr().err == ""


def test_silence_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Sweeping", 100, show=False, every=0.0) as bar:
        bar.advance(1)
        bar.skip(1)
    assert capsys.readouterr().err == ""


def test_a_notebook_without_widgets_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ZMQInteractiveShell:
        """As the shell of a notebook is called, by which it is told."""

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with progress_bar("Sweeping", 10, show=True, every=0.0) as bar:
        bar.advance(1)
    assert capsys.readouterr().err.startswith("Sweeping: 1 of 10 images (10%)")


def test_a_terminal_that_cannot_go_back_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setenv("TERM", "dumb")
    with progress_bar("Sweeping", 10, every=0.0) as bar:
        bar.advance(1)
    assert said.getvalue().startswith("Sweeping: 1 of 10 images (10%)")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (8.04e9, "8.0 GB")]
)
def test_bytes_are_counted_in_thousands(size: float, text: str) -> None:
    assert bytes_text(size) == text


def test_what_takes_longer_than_was_said_has_no_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar("Work", 2, every=0.0) as bar:
        bar.advance(3)
    assert capsys.readouterr().err.endswith(", 0 s left\n")


def test_a_number_of_bytes_has_three_digits_before_its_unit() -> None:
    assert [bytes_text(n) for n in (999, 999.7, 999_960)] == ["999 B", "1.0 kB", "1.0 MB"]
