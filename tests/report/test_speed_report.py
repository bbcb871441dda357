"""Tables and plots of speed."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from secateurs.errors import InvalidArgumentError
from secateurs.report import markdown_table, plot_rows, print_table
from secateurs.results import SpeedRow
from speed_rows import make_speed_row

ROWS = [
    make_speed_row(ratio, speedup, threads=threads)
    for threads in (1, 2)
    for ratio, speedup in ((0.0, 1.0), (0.8, 1.0), (0.9, float(threads)))
]


def printed(rows: list[SpeedRow], width: int = 120) -> str:
    file = io.StringIO()
    print_table(rows, Console(file=file, width=width))
    return file.getvalue()


def test_the_table_has_a_column_for_each_setting() -> None:
    text = printed(ROWS)
    assert "batch 1, 1 thread " in text
    assert "1,000 > 2,000 2.00x" in text
    assert "lenet300, batch 1, 1 thread: not faster at any ratio." in text
    assert "lenet300, batch 1, 2 threads: faster from 90.0% zeros." in text


def test_no_digits_are_lost_in_a_narrow_terminal() -> None:
    assert {"2,000", "2.00x"} <= set(printed(ROWS, width=30).split())


def test_the_markdown_table_has_a_line_for_each_measurement() -> None:
    lines = markdown_table(ROWS).splitlines()
    assert lines[-3].startswith("| lenet300 | 1 | 2 |")
    assert "| lenet300 | 1 | 2 | 90.0% | 1,000 | 2,000 | 2.00x | 1 of 3 |" in lines
    assert "a processor, float32" in lines[-1]


def test_the_plot_marks_the_break_even(tmp_path: Path) -> None:
    png, svg = plot_rows(ROWS, tmp_path / "speed", title="Ours")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for words in ("Ours", "batch 1, 2 threads", "90%", "accelerated", "Images a second"):
        assert words in text


def test_a_million_images_a_second_is_written_as_the_thousands_are(tmp_path: Path) -> None:
    rows = [make_speed_row(0.9, seconds=5e-7)]
    _, svg = plot_rows(rows, tmp_path / "speed")
    assert "2,000,000" in svg.read_text()


def test_a_plot_shows_one_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="one model"):
        plot_rows([*ROWS, make_speed_row(0.5, model="other")], tmp_path / "speed")
