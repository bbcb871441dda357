"""Runs are paired where both saw the same images, and only there."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from result_rows import make_row
from secateurs.errors import InvalidArgumentError
from secateurs.report import compare_runs, comparison_table
from secateurs.results import Results
from secateurs.results.compare import paired_test, unpaired_interval
from secateurs.results.image_outcomes import outcome_key, read_outcomes

SAMPLES = {"image_samples": {"0": "aa", "299": "bb", "labels": None}}
DENSE, SPARSE, LAMP = "1" * 270 + "0" * 30, "1" * 240 + "0" * 45 + "1" * 15, "1" * 250 + "0" * 50


def write(
    folder: Path, hits: dict[float, list[str]], config: object = SAMPLES, **row: object
) -> Path:
    rows = []
    for p_prune, draws in hits.items():
        counts = [each.count("1") for each in draws]
        mean = 100 * sum(counts) / len(counts) / 300
        made = make_row(p_prune, mean, draws=len(draws), **row)
        five = ";".join(["300"] * len(draws))
        rows.append(
            replace(
                made, top1=mean, top1_err=100 - mean, correct1=";".join(map(str, counts)),
                correct5=five, top5=100.0, top5_err=0.0,
            )
        )  # fmt: skip
    with Results(folder) as results:
        results.open(config)  # type: ignore[arg-type]
        results.save_outcomes(dict(zip(map(outcome_key, rows), hits.values(), strict=True)))
        results.add_all(rows)
    return folder


def test_one_run_is_compared_with_its_dense_network(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {0.0: [DENSE], 0.5: [SPARSE], 0.9: [LAMP, SPARSE]})
    assert list(read_outcomes(run).values())[2] == [LAMP, SPARSE]
    one, two = compare_runs([run])
    tested = paired_test(SPARSE, DENSE)
    assert one.paired and (one.lost, one.won) == (30, 15)
    assert (one.difference, one.low, one.high, one.p) == pytest.approx(
        (-5.0, tested.low, tested.high, tested.p)
    )
    tested = paired_test([LAMP, SPARSE], [DENSE, DENSE])
    assert (two.low, two.high, two.p) == pytest.approx((tested.low, tested.high, tested.p))


def test_two_runs_that_differ_in_one_setting_are_paired(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {0.0: [DENSE], 0.5: [SPARSE]})
    other = write(tmp_path / "b", {0.0: [DENSE], 0.5004: [LAMP]}, score="lamp")
    dense, pruned = compare_runs([first, other], 0.9)
    assert (dense.difference, dense.p) == (0.0, 1.0)
    tested = paired_test(LAMP, SPARSE, 0.9)
    assert (pruned.low, pruned.high, pruned.paired) == (tested.low, tested.high, True)
    assert (pruned.lost, pruned.won) == (15, 10)


def test_a_table_tells_apart_what_differs_and_that_alone(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {0.0: [DENSE], 0.5: [SPARSE]})
    with Results(run) as results:
        results.open(SAMPLES)
        results.add_all(
            [
                replace(results.rows()[1], p_bern=p, score=score)
                for p, score in ((0.5, "magnitude"), (1.0, "lamp"))
            ]
        )
    text = io.StringIO()
    comparison_table(compare_runs([run]), Console(file=text, width=120))
    lines = [line.split() for line in text.getvalue().splitlines() if "50%" in line]
    assert [line[: line.index("50%")] for line in lines] == [
        ["magnitude,", "p_bern", "1"], ["magnitude,", "p_bern", "0.5"], ["lamp,", "p_bern", "1"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "row"),
    [
        ({"image_samples": {"0": "aa", "299": "cc"}}, {}),
        ({}, {}),
        (SAMPLES, {"split": "train"}),
        (SAMPLES, {"preprocess": "resize 300", "data": "other"}),
    ],
)
def test_other_images_are_not_paired(
    tmp_path: Path, config: dict[str, object], row: dict[str, object]
) -> None:
    first = write(tmp_path / "a", {0.5: [SPARSE]})
    other = write(tmp_path / "b", {0.5: [LAMP]}, config, **row)
    (found,) = compare_runs([first, other])
    low, high = unpaired_interval((250 / 300, 300), (255 / 300, 300))
    assert not found.paired and found.p is found.lost is None
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_table_has_a_row_for_each_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison_table(compare_runs([write(tmp_path / "r", {0.0: [DENSE], 0.5: [SPARSE]})]))
    said = " ".join(capsys.readouterr().out.split())
    assert "the dense network" in said and "30/15" in said and "-5.00" in said and "0.036" in said


def test_runs_without_a_common_row_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {0.5: [SPARSE]})
    other = write(tmp_path / "b", {0.6: [SPARSE]})
    with pytest.raises(InvalidArgumentError, match="the same ratios"):
        compare_runs([first, other])
    with pytest.raises(InvalidArgumentError, match="no dense row"):
        compare_runs([first])
