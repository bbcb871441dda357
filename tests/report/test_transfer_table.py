import io
import re

import pytest
from rich.console import Console

from secateurs.report import markdown_table, print_table
from secateurs.report.number_text import p_text
from secateurs.results import TransferRow
from transfer_rows import make_benchmark, make_transfer_row

DWP = "dwp 0.3 0.5"
HITS = {"plain": "0100000000", DWP: "1111111100", "mup 0.15": "0110000000"}
TABLE = [
    *(
        make_transfer_row(text, untargeted_hits="1" * 10, variant=variant, target=target)
        for variant, text in HITS.items()
        for target in ("timm:squeezenet1_1", "timm:b|c")
    ),
    *(
        make_transfer_row("1" * 9 + "0", variant=variant, target="timm:lite0", role="whitebox")
        for variant in HITS
    ),
    make_transfer_row("0" * 10, variant="noise"),
]
NETWORKS = ["timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite1", "torchvision:squeezenet1_1"]
HOLD_ONE_OUT = [
    row
    for left in NETWORKS
    for row in make_benchmark(
        variants=["plain", DWP],
        surrogates=[";".join(name for name in NETWORKS if name != left)],
        targets=NETWORKS,
    )
]


def printed(rows: list[TransferRow], width: int = 200) -> str:
    text = io.StringIO()
    print_table(rows, Console(file=text, width=width))
    return text.getvalue()


def numbers(said: str) -> list[str]:
    return sorted(re.findall(r"[+-]?\d+\.\d", said))


def test_markdown_has_a_line_a_variant_and_a_column_a_target() -> None:
    text = markdown_table(TABLE)
    first, second, note = re.split(r"\n\n(?=\*\*U|10 images)", text)
    assert second.startswith("**Untargeted success in percent, surrogates lite0**")
    title, _, *lines = first.splitlines()
    assert title == "**Targeted success in percent, surrogates lite0**"
    assert lines[0] == "| variant | squeezenet1_1 | b\\|c | lite0 | hold-outs | vs plain | p |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2].startswith("| plain | 10.0 [1.8 to 40.4] | 10.0 [1.8 to 40.4] | (90.0 [")
    assert lines[2].endswith("| **10.0** [1.8 to 40.4] |  |  |")
    # 7 of 7 images gained, twice: McNemar's 2/128, times 2 variants.
    assert re.search(r"\| \+70\.0 \[\+\d.* \| 0\.031 \|$", lines[3])
    assert lines[4].endswith("| 1.000 |")
    assert lines[5].startswith("| noise | 0.0 [0.0 to 27.8] |  |  |  |")
    assert "10 images of imagenet_compatible" in note and "corrected (Holm) for 2" in note
    assert "in parentheses: white-box" in note and note.endswith(".\n")


def test_hold_one_out_has_a_column_of_surrogates_and_lines_over_all() -> None:
    text = markdown_table(HOLD_ONE_OUT)
    lines = text.splitlines()
    assert lines[2].startswith("| surrogates | variant | tf_efficientnet_lite0 |")
    starts = [re.split(r" \| \(?\d", line)[0] for line in lines[4:12]]
    assert starts == [
        f"| {names} | {variant}"
        for names in (
            "tf_efficientnet_lite1 + squeezenet1_1",
            "tf_efficientnet_lite0 + squeezenet1_1",
            "tf_efficientnet_lite0 + tf_efficientnet_lite1",
            "all surrogates",
        )
        for variant in ("plain", DWP)
    ]
    assert "Holm" not in text


def test_one_hold_out_needs_no_mean() -> None:
    rows = [make_transfer_row(variant=variant) for variant in ("plain", DWP)]
    lines = markdown_table(rows).splitlines()
    assert lines[2] == "| variant | squeezenet1_1 | vs plain | p |"


def test_an_untargeted_attack_has_one_table() -> None:
    text = markdown_table([make_transfer_row(targeted_attack=False)])
    assert "Targeted success" not in text and "**Untargeted success" in text
    assert "target classes" not in text


def test_parts_of_a_search_have_tables_of_their_own() -> None:
    rows = [
        make_transfer_row(search_part=part, images=part, variant=variant)
        for part in ("search", "report")
        for variant in ("plain", DWP)
    ]
    text = markdown_table(rows)
    assert "(part that settings are chosen on)**" in text
    assert "(part kept for the outcome)**" in text


def test_printed_numbers_are_above_their_intervals() -> None:
    text = printed(TABLE)
    lines = text.splitlines()
    row = next(i for i, line in enumerate(lines) if line.strip().startswith(DWP))
    cells = re.split(r"\s{2,}", lines[row].strip())
    assert cells == [DWP, "80.0", "+70.0", "0.031", "80.0", "80.0", "(90.0)"]
    assert re.findall(r"[+\d.]+ to [+\d.]+", lines[row + 1])[0] == "49.0 to 94.3"
    assert text.index("vs plain") < text.index("squeezenet1_1")


@pytest.mark.parametrize("width", [50, 80, 120])
@pytest.mark.parametrize("rows", [TABLE, HOLD_ONE_OUT])
def test_tables_fit_the_terminal_and_lose_nothing(rows: list[TransferRow], width: int) -> None:
    text = printed(rows, width)
    assert max(map(len, text.splitlines())) <= width
    assert numbers(text) == numbers(printed(rows, 1000))


def test_names_are_explained_where_they_occur() -> None:
    said = " ".join(printed(TABLE).split())
    for text in (" hold-outs: ", " plain: the ", " dwp R P: ", " mup R: ", " noise: "):
        assert said.count(text) == 1
    assert "hold-outs: networks that the attack did not use, in the column their mean" in said
    assert "rapa" not in said
    alone = markdown_table([make_transfer_row()])
    assert "hold-outs" not in alone and "dwp" not in alone
    assert alone.endswith("; plain: the surrogates as they are, not pruned.\n")


def test_p_values_are_short() -> None:
    assert [p_text(p) for p in (1.0, 0.0312, 0.001, 0.0009, 1e-30)] == [
        *("1.000", "0.031", "0.001", "<0.001", "<0.001"),
    ]


@pytest.mark.parametrize("width", [1, 20, 30, 50, 80])
def test_a_narrow_terminal_keeps_every_digit(width: int) -> None:
    assert numbers(printed(HOLD_ONE_OUT, width)) == numbers(printed(HOLD_ONE_OUT, 300))
