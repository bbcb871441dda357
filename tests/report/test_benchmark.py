import dataclasses
from pathlib import Path

import pytest

from secateurs.errors import InvalidArgumentError
from secateurs.report.grouping import describe_benchmark, shown_benchmarks, split_benchmarks
from secateurs.report.names import break_name, short_names
from secateurs.report.transfer_groups import BenchmarkRows, VariantRows
from secateurs.results import TransferRow
from secateurs.results.compare import paired_test, success_interval
from transfer_rows import make_transfer_row

A, B, C = "timm:a", "timm:b", "torchvision:c"
DWP = "dwp 0.3 0.5"


def only(rows: list[TransferRow]) -> BenchmarkRows:
    (found,) = split_benchmarks(rows)
    return found


def line(benchmark: BenchmarkRows, variant: str, surrogates: str | None = A) -> VariantRows:
    return next(
        one for one in benchmark.lines if (one.label, one.surrogates) == (variant, surrogates)
    )


def hits(surrogates: str, target: str, variant: str, **seeds: str) -> list[TransferRow]:
    role = "whitebox" if target in surrogates.split(";") else "holdout"
    return [
        make_transfer_row(
            text,
            surrogates="" if variant == "noise" else surrogates,
            target=target,
            variant=variant,
            role="holdout" if variant == "noise" else role,
            seed=int(seed.removeprefix("s")),
        )
        for seed, text in seeds.items()
    ]


ONE_GROUP = [
    *hits(A, A, "plain", s0="1111", s1="1111"),
    *hits(A, B, "plain", s0="0100", s1="0000"),
    *hits(A, C, "plain", s0="0000", s1="0001"),
    *hits(A, A, DWP, s0="1011", s1="1111"),
    *hits(A, B, DWP, s0="0110", s1="0110"),
    *hits(A, C, DWP, s0="1100", s1="0101"),
    *hits("", B, "noise", s0="0000"),
    *hits("", C, "noise", s0="0000"),
]


def test_cells_average_seeds_and_name_the_white_box() -> None:
    found = only(ONE_GROUP)
    assert [one.label for one in found.lines] == ["plain", DWP, "noise"]
    assert found.targets == (A, B, C) and found.groups == [A]
    cell = found.cell(line(found, DWP), B, "targeted")
    assert cell == (success_interval(["0110", "0110"]), "holdout")
    white = found.cell(line(found, DWP), A, "targeted")
    assert white is not None and (white[0].value, white[1]) == (87.5, "whitebox")
    assert found.cell(line(found, "noise", ""), A, "targeted") is None


def test_the_mean_is_over_hold_outs_without_the_white_box() -> None:
    found = only(ONE_GROUP)
    plain, ours = ["0100", "0000", "0000", "0001"], ["0110", "0110", "1100", "0101"]
    assert found.mean(line(found, "plain"), "targeted") == success_interval(plain)
    assert found.mean(line(found, DWP), "targeted") == success_interval(ours)
    assert found.compare(line(found, DWP), "targeted") == paired_test(ours, plain)
    assert found.compare(line(found, "plain"), "targeted") is None
    noise = found.mean(line(found, "noise", ""), "targeted")
    assert noise is not None and noise.value == 0.0


def test_a_mean_that_lacks_a_hold_out_is_not_shown() -> None:
    found = only([row for row in ONE_GROUP if (row.variant, row.target) != (DWP, C)])
    assert found.mean(line(found, DWP), "targeted") is None
    assert found.compare(line(found, DWP), "targeted") is None
    assert found.cell(line(found, DWP), B, "targeted") is not None


def test_only_seeds_that_both_sides_have_are_paired() -> None:
    found = only([row for row in ONE_GROUP if (row.variant, row.seed) != (DWP, 1)])
    assert found.compare(line(found, DWP), "targeted") == paired_test(
        ["0110", "1100"], ["0100", "0000"]
    )


HOLD_ONE_OUT = [
    row
    for names in (f"{A};{B}", f"{A};{C}", f"{B};{C}")
    for target in (A, B, C)
    for variant, text in (("plain", "0001"), (DWP, "0111"), ("mup 0.15", "0011"))
    for row in hits(names, target, variant, s0=text)
]


def test_hold_one_out_has_lines_over_all_groups() -> None:
    found = only(HOLD_ONE_OUT)
    assert len(found.lines) == 12
    assert found.holdouts == {(f"{A};{B}", C), (f"{A};{C}", B), (f"{B};{C}", A)}
    over_all = line(found, DWP, None)
    assert found.mean(over_all, "targeted") == success_interval(["0111"] * 3)
    cell = found.cell(over_all, A, "targeted")
    assert cell == (success_interval("0111"), "holdout")
    assert found.compare(over_all, "targeted") == paired_test(["0111"] * 3, ["0001"] * 3)


def test_the_line_over_all_groups_needs_all_of_them() -> None:
    unfinished = [
        row for row in HOLD_ONE_OUT if row.surrogates != f"{B};{C}" or row.variant == "plain"
    ]
    over_all = [one.label for one in only(unfinished).lines if one.surrogates is None]
    assert over_all == ["plain"]


def test_holm_corrects_within_the_same_surrogates() -> None:
    found = only(HOLD_ONE_OUT)
    compared = found.comparisons("targeted")
    for group in found.groups:
        family = [pair for i, pair in compared.items() if found.lines[i].surrogates == group]
        assert sorted(one.p for one, _ in family) == [0.5, 1.0]
        assert [raised for one, raised in family if one.p == 0.5] == [1.0]
    assert len(compared) == 8


def test_rows_of_other_images_or_protocols_are_never_compared() -> None:
    for change in ({"images": "other"}, {"eps": 8 / 255}, {"method": "mi-ce"}, {"steps": 300}):
        moved = [
            dataclasses.replace(row, **change) if row.variant == DWP else row for row in ONE_GROUP
        ]
        found = split_benchmarks(moved)
        assert len(found) == 2, change
        assert all(not one.comparisons("targeted") for one in found)


def test_lines_say_what_else_differs() -> None:
    rows = [
        make_transfer_row(variant="plain"),
        make_transfer_row(variant=DWP),
        make_transfer_row(variant=DWP, granularity="kernel"),
        make_transfer_row(variant=DWP, granularity="kernel", passes=5),
        make_transfer_row(variant="plain", passes=5),
        *hits("", B, "noise", s0="0000"),
    ]
    found = only(rows)
    assert [one.label for one in found.lines] == [
        "plain, 1 pass",
        "plain, 5 passes",
        f"{DWP}, weight, 1 pass",
        f"{DWP}, kernel, 1 pass",
        f"{DWP}, kernel, 5 passes",
        "noise",
    ]
    baselines = [one and one.label for one in map(found.baseline, found.lines)]
    assert baselines == [None, None, *["plain, 1 pass"] * 2, "plain, 5 passes", None]


def test_unequal_work_is_said_where_nothing_else_needs_it() -> None:
    found = only([make_transfer_row(), make_transfer_row(variant=DWP, passes=5)])
    assert [one.label for one in found.lines] == ["plain, 1 pass", f"{DWP}, 5 passes"]
    baseline = found.baseline(found.lines[1])
    assert baseline is found.lines[0]


def test_two_networks_of_one_name_are_kept_apart() -> None:
    rows = [make_transfer_row(target="timm:a", target_sha256=sha * 16) for sha in "ab"]
    assert only(rows).targets == ("timm:a (aaaaaaaa)", "timm:a (bbbbbbbb)")
    rows = [make_transfer_row(target=name, dtype=dtype) for name, dtype in ("af", "ag", "bf")]
    assert only(rows).targets == ("a (f)", "a (g)", "b")
    assert [one.label for one in only(rows).lines] == ["plain"]


def test_without_hold_outs_the_white_box_is_shown() -> None:
    found = only([row for row in ONE_GROUP if row.target == A])
    assert found.measured == "white-box"
    mean = found.mean(line(found, DWP), "targeted")
    assert mean is not None and mean.value == 87.5


def test_surrogates_of_a_large_hold_one_out_are_named_by_what_is_left_out() -> None:
    networks = [f"timm:net{i}" for i in range(4)]
    rows = [
        row
        for left in networks
        for target in networks
        for row in hits(";".join(n for n in networks if n != left), target, "plain", s0="01")
    ]
    found = only(rows)
    assert [found.surrogates_text(group) for group in found.groups] == [
        f"all but net{i}" for i in range(4)
    ]
    assert only(HOLD_ONE_OUT).surrogates_text(f"{A};{B}") == "a + b"
    assert only(HOLD_ONE_OUT).surrogates_text(None) == "all surrogates"


def test_description() -> None:
    rows = [
        make_transfer_row(seed=seed, split="val", eps=eps, alpha=0.01)
        for seed in (0, 1)
        for eps in (16 / 255,)
    ]
    assert describe_benchmark(only(rows)) == (
        "4 images of imagenet_compatible (val) that all networks classify correctly, of 300 looked"
        " at, target classes given; mi-ti-di-logit, eps 16/255, alpha 0.01, step 60 of 60, 2 seeds"
    )


def test_search_rows_are_not_drawn_where_others_are() -> None:
    search = make_transfer_row(search_part="search", images="1")
    kept = make_transfer_row(search_part="report", images="2")
    other = make_transfer_row(search_part="report", images="3")
    shown = shown_benchmarks([search, kept, other], "out/plot", None)
    assert [(path, one.rows[0].images) for path, one, _ in shown] == [
        (Path("out/plot"), "2"),
        (Path("out/plot-2"), "3"),
    ]
    assert len(shown_benchmarks([search], "plot", None)) == 1


def test_an_untargeted_attack_has_no_targeted_success() -> None:
    rows = [make_transfer_row(targeted_attack=False)]
    assert only(rows).outcomes == ("untargeted",)
    with pytest.raises(InvalidArgumentError, match="give 'untargeted'"):
        shown_benchmarks(rows, "plot", "targeted")


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="run a transfer first"):
        split_benchmarks([])


def test_names_are_short_unless_two_would_be_one() -> None:
    assert short_names(["timm:a", "hf:b/c", "d"]) == {"timm:a": "a", "hf:b/c": "b/c", "d": "d"}
    assert short_names(["timm:a", "hf:a"]) == {"timm:a": "timm:a", "hf:a": "hf:a"}


@pytest.mark.parametrize("width", [1, 5, 12, 40])
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "a + bb", "x" * 30, "", "__", "a:b/c-d.e"]
)
def test_broken_names_lose_no_letter(name: str, width: int) -> None:
    lines = break_name(name, width)
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(len(part) <= width for part in lines)


def test_numbers_in_names_are_not_broken() -> None:
    assert break_name("dwp 1 0.05", 8) == ["dwp 1", "0.05"]


def test_the_passes_that_all_share_are_named_once() -> None:
    one = [make_transfer_row(), make_transfer_row(variant=DWP), make_transfer_row(variant="noise")]
    assert "passes" not in describe_benchmark(only(one))
    four = [
        make_transfer_row(passes=4),
        make_transfer_row(variant=DWP, passes=4),
        make_transfer_row(variant="noise"),
    ]
    assert ", 4 passes a step, step " in describe_benchmark(only(four))
    assert all("passes" not in line.label for line in only(four).lines)
