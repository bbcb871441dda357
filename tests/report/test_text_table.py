"""Tables fit the terminal without a cut word or number, and are never split in two."""

import io

import pytest
from rich.console import Console

from secateurs.report.text_table import TextTable, show_tables

TABLE = TextTable(
    ["layer", "weights", "95% interval"],
    [
        ["features.denseblock1.conv1.weight", "9,408", "71.2 to 79.8"],
        ["fc", "51,300", "-3.0 to 104.1"],
    ],
    "a-network",
    groups=["first", "second"],
)


def test_a_wide_terminal() -> None:
    assert TABLE.lines(80) == [
        "  layer                               weights    95% interval",
        f" {60 * '─'}",
        "",
        " first",
        "  features.denseblock1.conv1.weight     9,408    71.2 to 79.8",
        "",
        " second",
        "  fc                                   51,300   -3.0 to 104.1",
    ]


def test_names_are_wrapped_between_their_parts() -> None:
    assert [line for line in TABLE.lines(46) if "9,408" in line or "weight" in line] == [
        " layer                  weights   95% interval",
        " features.denseblock1.    9,408   71.2 to 79.8",
        " conv1.weight",
    ]


def test_numbers_are_wrapped_at_spaces() -> None:
    assert TABLE.lines(33)[:2] == [
        "                             95%",
        " layer         weights  interval",
    ]
    assert TABLE.lines(33)[5:8] == [
        " features.       9,408   71.2 to",
        " denseblock1.               79.8",
        " conv1.weight",
    ]


def test_where_nothing_helps_each_row_is_a_list() -> None:
    assert TABLE.lines(27) == [
        "",
        " first",
        "",
        " layer         features.",
        "               denseblock1.",
        "               conv1.weight",
        " weights       9,408",
        " 95% interval  71.2 to 79.8",
        "",
        " second",
        "",
        " layer         fc",
        " weights       51,300",
        " 95% interval  -3.0 to",
        "               104.1",
    ]


def test_a_wrapped_head_is_whole_again_in_a_list() -> None:
    table = TextTable(["name", "digits-\nresidual", "global\nmagnitude"], [["a", "9", "8"]])
    said = ["", " name      a", " digits-   9", " residual", " global,   8", " magnitude"]
    assert table.lines(12) == said


@pytest.mark.parametrize("width", [1, 7, 20, 33, 60, 200])
def test_no_word_is_cut_at_any_width(width: int) -> None:
    text = io.StringIO()
    show_tables(Console(file=text, width=width), [TABLE], "", "a note")
    said = text.getvalue().split()
    for word in ("9,408", "51,300", "71.2", "104.1", "layer", "weights"):
        assert word in said
    if width >= 33:
        assert max(map(len, text.getvalue().splitlines())) <= width


def test_markdown() -> None:
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "| layer | weights | 95% interval |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[3] == "| fc | 51,300 | -3.0 to 104.1 |"
