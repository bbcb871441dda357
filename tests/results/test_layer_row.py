from pathlib import Path

import pytest

from secateurs.errors import FailureError
from secateurs.results import LayerRow, Results, read_layer_rows, write_layer_rows

ROW = LayerRow(
    model="small", prune_type="global", granularity="weight", scope="global", score="magnitude",
    p_prune=0.5, p_bern=1.0, seed=None, layer="fc.weight", total=8, kept=2, most=2.0,
    dense_counts="5;3", kept_counts="0;2",
)  # fmt: skip


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    assert read_layer_rows(tmp_path) == []
    write_layer_rows(tmp_path, [ROW])
    (row,) = read_layer_rows(tmp_path)
    assert row == ROW and row.ratio == 0.25 and row.histogram == ([5, 3], [0, 2])


def test_a_run_that_begins_again_removes_them(tmp_path: Path) -> None:
    write_layer_rows(tmp_path, [ROW])
    with Results(tmp_path) as results:
        results.open({"model": "other"}, overwrite=True)
    assert read_layer_rows(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kept": 9}, "more than the 8 weights"),
        ({"kept_counts": "1"}, "equally many whole numbers"),
        ({"dense_counts": "5;x"}, "equally many whole numbers"),
    ],
)
def test_columns_that_contradict_each_other(changes: dict[str, object], said: str) -> None:
    with pytest.raises(FailureError, match=said):
        LayerRow.from_dict(ROW.as_dict() | changes)
