import io
import re

import pytest
from rich.console import Console

from result_rows import make_row
from secateurs.errors import InvalidArgumentError
from secateurs.report import markdown_table, print_table
from secateurs.report.number_text import percent
from secateurs.report.sweep_report import print_sweep
from secateurs.results import Row

GRID = [
    make_row(ratio, 80 - 100 * ratio * (1.2 if granularity == "kernel" else 1.0), **names)
    for model in ("torchvision:squeezenet1_1", "timm:tf_efficientnet_lite0")
    for granularity in ("weight", "kernel")
    for scope in ("global", "layer")
    for ratio in (0.0, 0.1, 0.125, 0.5)
    for names in [{"model": model, "granularity": granularity, "scope": scope}]
]


def printed(rows: list[Row], width: int = 80) -> str:
    text = io.StringIO()
    print_table(rows, Console(file=text, width=width))
    return text.getvalue()


def test_one_series_prints_a_line_a_ratio() -> None:
    text = printed([make_row(0.0, 83.0), make_row(0.3, 79.0, achieved=0.2951, loss=0.81234)])
    dense, pruned = [line.split() for line in text.splitlines() if re.match(r" +\d+% ", line)]
    assert dense == ["0%", "0.0%", "83.0", "78.3", "to", "86.8", "93.0", "0.700"]
    assert pruned == ["30%", "29.5%", "79.0", "74.0", "to", "83.2", "-4.0", "89.0", "0.812"]
    assert "300 images of imagenet (val); weights ranked globally by magnitude" in text


def test_ratios_of_layers_are_said_in_words_and_round() -> None:
    text = " ".join(printed([make_row(0.699999, 79.0, scope="ratios b6c3e7d3")]).split())
    assert " 70% " in text and "ranked per layer, each with a ratio of its own (ratios b6" in text


def test_one_model_on_several_data_is_named_with_the_last_part_of_their_paths() -> None:
    text = printed([make_row(0.3, 79.0, data=f"/there/{name}") for name in ("one", "two")])
    assert "resnet18, one" in text and "resnet18, two" in text and "there" not in text
    text = printed([make_row(0.3, 79.0, data=f"/{name}/val") for name in ("one", "two")])
    assert "resnet18, /one/val" in text


def test_several_draws_show_their_spread() -> None:
    text = printed([make_row(0.3, 79.0, draws=5, p_bern=0.5, top1_std=1.25)])
    assert "std" in text and "1.25" in text


def test_a_loss_that_ran_away_fits() -> None:
    for loss in (1e30, float("inf"), float("nan")):
        assert f"{loss:.2g}" in printed([make_row(0.9, 0.0, loss=loss)])


def test_several_series_print_a_table_a_model_with_a_column_a_series() -> None:
    text = printed(GRID)
    assert text.count("squeezenet1_1") == text.count("tf_efficientnet_lite0") == 1
    assert text.count("asked") == 2
    line = next(line for line in text.splitlines() if line.strip().startswith("50%"))
    assert line.split() == ["50%", "30.0", "±5.2", "30.0", "±5.2", "20.0", "±4.5", "20.0", "±4.5"]


def test_columns_of_other_units_say_how_many_weights_they_prune() -> None:
    rows = [make_row(0.6, 20.0), make_row(0.6, 43.0, granularity="kernel", achieved=0.36)]
    text = printed(rows)
    assert "20.0 ±4.5 " in text and "43.0 ±5.6 (36%)" in text
    assert "in parentheses the weights pruned" in " ".join(text.split())
    assert "parentheses" not in printed(GRID)


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_tables_fit_the_terminal_and_lose_nothing(width: int) -> None:
    rows = [row for row in GRID if row.model.startswith("timm")]
    text = printed(rows, width)
    assert max(map(len, text.splitlines())) <= width
    cells = [line for line in text.splitlines() if line.strip().startswith("12.5%")]
    assert sum(line.count(".") for line in cells) >= 5 and text.count("asked") == 1
    assert re.findall(r"±\d+\.\d", text) == re.findall(r"±\d+\.\d", printed(rows, 500))


def test_markdown_has_a_line_a_series_and_a_column_a_ratio() -> None:
    missing = [row for row in GRID if not (row.granularity == "kernel" and row.p_prune == 0.125)]
    table, note = markdown_table(missing).strip().split("\n\n")
    lines = table.splitlines()
    assert lines[0] == "| model | granularity | scope | 0% | 10% | 12.5% | 50% |"
    assert lines[1] == "| --- | --- | --- | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| squeezenet1_1 | weight | global | 80.0 | 70.0 | 67.3 | 30.0 |"
    assert lines[9] == "| tf_efficientnet_lite0 | kernel | layer | 80.0 | 68.0 |  | 20.0 |"
    assert note.startswith("Top-1 accuracy in percent, 95% interval at most ±5.")
    assert note.endswith("300 images of imagenet (val); ranked by magnitude.")


def test_markdown_names_what_else_differs_and_escapes() -> None:
    rows = [make_row(0.5, score=score, model="a|b") for score in ("magnitude", "taylor")]
    lines = markdown_table(rows).splitlines()
    assert lines[0] == "| model | granularity | scope | setting | 50% |"
    assert lines[3] == "| a\\|b | weight | global | taylor | 83.0 |"


def test_fifty_thousand_images_have_a_second_decimal() -> None:
    assert "| 69.76 |" in markdown_table([make_row(0.5, 69.76, count=50_000)])


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.0, "0%"), (0.1 + 0.2, "30%"), (0.125, "12.5%"), (1.0, "100%")]
)
def test_percent_is_short_and_exact(ratio: float, text: str) -> None:
    assert percent(ratio) == text


def test_no_rows_are_refused() -> None:
    for show in (print_table, markdown_table):
        with pytest.raises(InvalidArgumentError, match="no rows"):
            show([])


@pytest.mark.parametrize(
    ("targets", "words"),
    [((95_000, 95_000), ""), ((5_000, 5_000), "5% of the weights compete"), ((5_000, 9_000), "")],
)
def test_a_share_of_weights_that_is_not_nearly_all_is_said(
    targets: tuple[int, int], words: str
) -> None:
    rows = [
        make_row(0.1 * i, 80, targets=count, param_count=0.1) for i, count in enumerate(targets)
    ]
    for text in (printed(rows, 200), markdown_table(rows)):
        assert ("compete" in text) == bool(words)
        assert words in text


def test_a_note_is_below_the_table() -> None:
    low = [make_row(0.5, 80, targets=5_000, param_count=0.1)]
    for rows in (low, [*GRID, *low]):
        text = io.StringIO()
        print_sweep(rows, Console(file=text, width=80), note="95% of the weights stay: lstm")
        assert text.getvalue().splitlines()[-1] == "95% of the weights stay: lstm"
        assert "compete" not in text.getvalue()  # once is enough


@pytest.mark.parametrize("width", [1, 12, 20, 30, 45, 66, 80])
def test_one_series_keeps_its_digits_at_any_width(width: int) -> None:
    rows = [make_row(ratio, 98.8 - 40 * ratio, draws=3, top1_std=1.25) for ratio in (0.0, 0.9)]
    text, whole = printed(rows, width), printed(rows, 200)
    numbers = r"[+-]?\d+\.\d+%?"
    assert sorted(re.findall(numbers, text)) == sorted(re.findall(numbers, whole))
    if width >= 24:
        assert max(map(len, text.splitlines())) <= width
