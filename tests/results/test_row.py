import csv
import math
from pathlib import Path

import numpy as np
import pytest

from result_rows import make_row
from secateurs.errors import FailureError
from secateurs.results import Results, Row, read_rows

TIMM = [
    "model",
    "top1",
    "top1_err",
    "top5",
    "top5_err",
    "loss",
    "param_count",
    "img_size",
    "crop_pct",
    "interpolation",
]


@pytest.mark.parametrize(
    "row",
    [
        make_row(),
        make_row(seed=None, amp=True, layers="conv2d;linear", include='a,"b"', model="naïve ✂"),
        make_row(loss=math.inf, infer_samples_per_sec=1 / 3, p_prune=0.1 + 0.2),
        make_row(model="two\nlines"),
    ],
)
@pytest.mark.parametrize("name", ["results.jsonl", "results.csv", ""])
def test_row_survives_the_disk_exactly(tmp_path: Path, row: Row, name: str) -> None:
    with Results(tmp_path) as results:
        results.add(row)
        assert results.rows() == [row]
    assert read_rows(tmp_path / name) == [row]


def test_a_loss_that_is_not_a_number_stays_so_in_valid_json(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add(make_row(loss=math.nan))
        assert math.isnan(results.rows()[0].loss)
    assert '"loss": "NaN"' in (tmp_path / "results.jsonl").read_text()


def test_scalars_of_numpy_become_plain_values(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add(make_row(loss=np.float32(0.5), units=np.int64(3), amp=np.bool_(True)))
        row = results.rows()[0]
    assert (row.loss, row.units, row.amp) == (0.5, 3, True)
    assert type(row.amp) is bool


def test_csv_columns_are_timms_where_they_exist_then_ours(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add(make_row())
    with (tmp_path / "results.csv").open(newline="") as file:
        header, cells = csv.reader(file)
    assert tuple(header) == Row.columns()
    assert set(TIMM) <= set(header)
    assert dict(zip(header, cells, strict=True))["top1"] == "83.0"


def test_key_is_what_was_asked_for() -> None:
    row = make_row()
    assert row.key == make_row(top1=12.0, duration=99.0, device="cuda", batch_size=1).key
    for change in ({"p_prune": 0.4}, {"seed": None}, {"weights_sha256": "0"}, {"img_size": 256}):
        assert make_row(**change).key != row.key, change


def test_unknown_columns_are_left_out() -> None:
    row = make_row()
    assert Row.from_dict(row.as_dict() | {"invented_later": 1}) == row


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("top1", "high", "column top1 .*'high'.*float"),
        ("amp", "maybe", "column amp .*'maybe'.*bool"),
    ],
)
def test_a_cell_of_the_wrong_kind_is_named(column: str, value: str, words: str) -> None:
    with pytest.raises(FailureError, match=words):
        Row.from_dict(make_row().as_dict() | {column: value})


def test_a_missing_column_is_named() -> None:
    values = make_row().as_dict()
    del values["achieved"]
    with pytest.raises(FailureError, match=r"lacks achieved;.*another output"):
        Row.from_dict(values)


def test_a_table_of_another_kind_is_refused_in_a_short_line() -> None:
    with pytest.raises(FailureError, match=r"lacks model, weights, \w+ and \d+ more; it is no row"):
        Row.from_dict({"network": "mlp", "top1": "98.14"})
