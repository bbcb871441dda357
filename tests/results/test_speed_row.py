"""Rows of a measurement of speed."""

from pathlib import Path

import pytest

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.results import Results, SpeedRow, kind_of_rows, read_rows
from secateurs.results.speed_row import break_even
from speed_rows import make_speed_row


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [make_speed_row(0.0), make_speed_row(0.9, 2.0)]
    with Results(tmp_path, SpeedRow) as results:
        results.add_all(rows)
    assert read_rows(tmp_path, SpeedRow) == rows
    assert read_rows(tmp_path / "results.csv", SpeedRow) == rows
    assert kind_of_rows(tmp_path) is SpeedRow
    with pytest.raises(InvalidArgumentError, match="speed measurement, not of a sweep"):
        read_rows(tmp_path)


def test_rates_follow_from_seconds() -> None:
    row = make_speed_row(0.9, 2.0, batch_size=4)
    assert (row.dense_rate, row.rate, row.speedup) == pytest.approx((4000, 8000, 2))


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        ([1.0, 1.0, 1.5, 2.0], 0.8),
        ([1.0, 1.5, 1.01, 2.0], 0.9),  # one ratio between is not faster
        ([1.0, 1.5, 2.0, 1.0], None),
        ([1.5, 1.5, 1.5, 1.5], 0.0),
    ],
)
def test_the_break_even_is_where_all_higher_ratios_pay(
    speedups: list[float], expected: float | None
) -> None:
    ratios = (0.0, 0.5, 0.8, 0.9)
    rows = [make_speed_row(*pair) for pair in zip(ratios, speedups, strict=True)]
    assert break_even(rows[::-1]) == expected


@pytest.mark.parametrize(
    "wrong", [{"replaced": 4}, {"seconds": 0.0}, {"achieved": 1.5}, {"threads": 0}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    values = {**make_speed_row(0.5).as_dict(), **wrong}
    with pytest.raises(FailureError, match=next(iter(wrong))):
        SpeedRow.from_dict(values)
