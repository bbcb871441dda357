"""Table and heat map of a sensitivity run."""

from pathlib import Path

import pytest
from rich.console import Console

from secateurs.report import markdown_table, plot_rows, print_table
from secateurs.report.row_kinds import rows_sections
from secateurs.report.sensitivity_report import sensitivity_figure
from secateurs.results import Rows
from sensitivity_rows import make_sensitivity_row

ROWS = [
    make_sensitivity_row(layer, ratio, top1=top1)
    for layer, every in {"conv1.weight": (89.0, 40.0), "a [b]|\x1b.weight": (91.0, 80.0)}.items()
    for ratio, top1 in zip((0.5, 0.9), every, strict=True)
]


@pytest.mark.parametrize("width", [50, 120])
def test_the_table_has_a_layer_a_line(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, Console(width=width))
    said = capsys.readouterr().out
    for text in (
        "conv1.weight",
        "-50.0 (152/2)",
        "+1.0 (2/5)",
        "a [b]|\\x1b.",
        "dense 90.0%",
    ):
        assert text in " ".join(said.split())
    assert "\x1b" not in said


def test_the_table_names_the_images_of_scores() -> None:
    known = {"score": "wanda", "calibration": "mnist", "calibration_count": 1}
    text = markdown_table([make_sensitivity_row("conv1.weight", 0.5, **known)])
    assert "; wanda scores from 1 image of mnist" in text


def test_markdown_escapes_what_would_break_it() -> None:
    text = markdown_table(ROWS)
    assert "| conv1.weight | 1,000 | -1.0 (5/2) | -50.0 (152/2) |" in text
    assert "a [b]\\|\\x1b.weight" in text


def test_the_heat_map_has_a_cell_for_each_layer_and_ratio() -> None:
    (axes,) = sensitivity_figure([row.printable() for row in ROWS], "Layers").axes
    names, ratios = (
        [label.get_text() for label in axis.get_ticklabels()] for axis in (axes.yaxis, axes.xaxis)
    )
    assert (names, ratios) == (["conv1.weight", "a [b]|\\x1b.weight"], ["50%", "90%"])
    assert [text.get_text() for text in axes.texts] == ["-1.0", "-50.0", "+1.0", "-10.0"]
    darkness = [1 - patch.get_facecolor()[1] for patch in axes.patches]
    assert darkness[1] > darkness[3] > darkness[0] > darkness[2] == 0
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 2), (2, 0))


def test_the_heat_map_is_written_with_its_scale(tmp_path: Path) -> None:
    png, svg = plot_rows(ROWS, tmp_path / "heat", title="Layers")
    assert png.read_bytes().startswith(b"\x89PNG")
    drawn = svg.read_text()
    assert "Layers" in drawn and "darkest at -50" in drawn


def test_rows_show_themselves_with_a_heat_map_of_changes() -> None:
    rows = Rows([make_sensitivity_row("a", 0.5), make_sensitivity_row("b", 0.5)])
    (section,) = rows_sections(rows)
    (chart,), (table,) = section.charts, section.tables
    assert chart.figure["data"][0]["type"] == "heatmap" and len(table.rows) == len(rows)
