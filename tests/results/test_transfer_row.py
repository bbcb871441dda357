import csv
from pathlib import Path

import pytest

from result_rows import make_row
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.results import (
    Results,
    Row,
    TransferRow,
    digest_of,
    hit_columns,
    kind_of_rows,
    read_rows,
    wilson_interval,
)
from transfer_rows import make_transfer_row

FILES = ["", "results.jsonl", "results.csv"]


@pytest.mark.parametrize(
    "row",
    [
        make_transfer_row(),
        make_transfer_row(variant="dwp 0.3 0.5", surrogates="timm:a;timm:b", seed=3),
        make_transfer_row(variant="noise", preprocess='one, "two"\nthree', rounded=False),
        make_transfer_row(targeted_attack=False),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_row_survives_the_disk_exactly(tmp_path: Path, row: TransferRow, name: str) -> None:
    with Results(tmp_path, TransferRow) as results:
        results.add(row)
        assert results.rows() == [row]
    assert read_rows(tmp_path / name, TransferRow) == [row]
    assert kind_of_rows(tmp_path / name) is TransferRow


def test_a_folder_of_transfer_rows_continues_and_replaces(tmp_path: Path) -> None:
    with Results(tmp_path, row=TransferRow) as results:
        assert results.open({"run": 1}) is False
        results.add_all([make_transfer_row("0110", seed=0), make_transfer_row("0010", seed=1)])
        results.add(make_transfer_row("1111", seed=0))
    with Results(tmp_path, TransferRow) as results:
        assert results.open({"run": 1}) is True
        assert [row.targeted_hits for row in results.rows()] == ["1111", "0010"]
    with (tmp_path / "results.csv").open(newline="") as file:
        header, first, _ = csv.reader(file)
    assert tuple(header) == TransferRow.columns()
    assert dict(zip(header, first, strict=True))["targeted_hits"] == "1111"


def test_hits_keep_their_leading_zeros(tmp_path: Path) -> None:
    with Results(tmp_path, TransferRow) as results:
        results.add(make_transfer_row("0001"))
    assert read_rows(tmp_path / "results.csv", TransferRow)[0].targeted_hits == "0001"


def test_key_is_what_was_asked_for() -> None:
    row = make_transfer_row("0110")
    same = make_transfer_row("1111", seconds=99.0, device="cuda", versions="x", achieved=0.1)
    assert row.key == same.key
    for name, value in (
        *(("surrogates", "b"), ("target", "b"), ("variant", "dwp 0.1 0.5"), ("passes", 5)),
        *(("step", 40), ("seed", 1), ("images", "0"), ("search_part", "search"), ("eps", 0.01)),
        *(("batch_size", 1), ("target_sha256", "0"), ("rounded", False), ("dtype", "float16")),
    ):
        assert make_transfer_row("0110", **{name: value}).key != row.key, name


@pytest.mark.parametrize("name", FILES)
def test_the_other_kind_of_rows_is_named(tmp_path: Path, name: str) -> None:
    with Results(tmp_path / "transfer", TransferRow) as results:
        results.add(make_transfer_row())
    with Results(tmp_path / "sweep") as results:
        results.add(make_row())
    with pytest.raises(InvalidArgumentError, match=r"of a transfer, not of a sweep.*TransferRow"):
        read_rows(tmp_path / "transfer" / name)
    with pytest.raises(InvalidArgumentError, match=r"of a sweep, not of a transfer.*, Row"):
        read_rows(tmp_path / "sweep" / name, TransferRow)
    assert kind_of_rows(tmp_path / "sweep" / name) is Row


def test_without_rows_there_is_no_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no results at"):
        kind_of_rows(tmp_path)
    with Results(tmp_path, TransferRow) as results:
        results.open({})
        assert kind_of_rows(tmp_path) is None
    assert read_rows(tmp_path, TransferRow) == read_rows(tmp_path) == []


def test_a_missing_or_broken_column_is_named() -> None:
    values = make_transfer_row().as_dict()
    with pytest.raises(FailureError, match=r"column targeted .*'high'.*not a number"):
        TransferRow.from_dict(values | {"targeted": "high"})
    del values["images"]
    with pytest.raises(FailureError, match=r"lacks images;.*run the transfer again"):
        TransferRow.from_dict(values)


def test_columns_that_follow_from_the_hits() -> None:
    columns = hit_columns([True, True, False, True], [1, 0, 0, 0])
    assert (columns["count"], columns["targeted_hits"], columns["untargeted_hits"]) == (
        *(4, "1000", "1101"),
    )
    low, high = wilson_interval(1, 4)
    ends = (columns["targeted"], columns["targeted_low"], columns["targeted_high"])
    assert ends == (25.0, 100 * low, 100 * high)
    alone = hit_columns([True, False])
    assert alone["targeted_hits"] == "" and alone["targeted_low"] is None
    assert alone["untargeted"] == 50.0


def test_outcomes_of_different_images_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="3 untargeted and 2 targeted"):
        hit_columns([1, 1, 1], [1, 1])
    with pytest.raises(InvalidArgumentError, match="at least one image"):
        hit_columns([])


def test_the_digest_of_images_depends_on_their_order() -> None:
    assert len(digest_of(["a", "b"])) == 16
    assert len({digest_of(ids) for ids in (["a", "b"], ["b", "a"], ["ab"], [])}) == 4
