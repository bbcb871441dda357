"""Table, figure and section of a budget."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_plot import texts

from budget_rows import BUDGET, make_budget_row
from secateurs.errors import FailureError
from secateurs.report import markdown_table, plot_rows, print_table
from secateurs.report.budget_report import describe_budget
from secateurs.report.row_kinds import rows_sections
from secateurs.results import BudgetRow, Results, kind_of_rows, read_rows

CLAIM = (
    "56% pruned: top-1 90.00 to 89.10, a drop of 0.90 points, with 95% confidence below 1.80 "
    "(asked: 2), on 1,000 images"
)
NEEDED = (
    "62% pruned: a drop of 1.70 points on the images scored; about 1,500 such images would show it "
    "below 2"
)


def test_the_table_and_the_claim(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(BUDGET, Console(width=60))
    said = capsys.readouterr().out
    assert CLAIM in said and NEEDED in said
    assert "4 looks at the same images, each at a seventh of the allowed error; 4.4 passes" in said
    assert "| 75% | 400 | 300 | 5 | 73.75 | 74.65 | failed |" in markdown_table(BUDGET)


def test_where_no_network_passed() -> None:
    rows = [make_budget_row(0.5, 300), make_budget_row(0.25, 200)]
    claim = "no pruned network drops with 95% confidence by less than 2 points"
    assert claim in markdown_table(rows)
    (section,) = rows_sections(rows)
    assert section.headline.startswith("No pruned network") and not section.facts


def test_the_figure_and_the_page_name_the_images_of_scores() -> None:
    text = describe_budget([make_budget_row(0.5, 12, score="obs", calibration_count=64)])
    assert text.endswith("; obs scores from 64 images")


def test_the_section_of_a_page() -> None:
    (section,) = rows_sections(BUDGET)
    assert section.headline == (
        "56% of the weights of torchvision:resnet18 pruned, and top-1 drops with 95% confidence by "
        "less than 2 points."
    )
    facts = [fact.value for fact in section.facts]
    assert facts == ["56%", "0.90 points", "1.80 points", "1,500"]
    (chart,), (table,) = section.charts, section.tables
    joined, passed, failed, allowed = chart.figure["data"]
    assert (passed["x"], failed["x"]) == ([50.0, 56.0], [62.0, 75.0])
    assert joined["x"] == [50.0, 56.0, 62.0, 75.0] and joined["y"][-1] == 8
    assert failed["customdata"][1][1:3] == ["73.75", "74.65"]
    assert failed["y"][1] == 8 and failed["marker"]["symbol"] == ["x", "triangle-up"]
    assert allowed["y"] == [2.0, 2.0] and "Triangles" in chart.caption
    assert [cell.text for cell in table.rows[2]] == [
        "62", "1,000", "22", "5", "1.70", "2.60", "failed", "1,500",
    ]  # fmt: skip


def test_the_figure(tmp_path: Path) -> None:
    png, svg = plot_rows(BUDGET, tmp_path / "budget", title="Ours")
    assert png.read_bytes().startswith(b"\x89PNG")
    said = texts(svg)
    for text in ("Ours", "Drop of top-1 (points)", "Ratio that is pruned (% of weights)", "passed"):
        assert text in said
    assert "allowed: 2" in said


def test_rows_on_disk(tmp_path: Path) -> None:
    with Results(tmp_path, BudgetRow) as results:
        results.open({})
        results.add_all(BUDGET)
    for file in (tmp_path, tmp_path / "results.csv"):
        assert read_rows(file, BudgetRow) == BUDGET and kind_of_rows(file) is BudgetRow
    with pytest.raises(FailureError, match="column drop"):
        BudgetRow.from_dict(replace(BUDGET[0], drop=5.0).as_dict())
