"""Schedules are small values: their ratios, how they print, what they refuse."""

import re
from pathlib import Path

import numpy as np
import pytest

import secateurs as sc
from secateurs.training import Constant, Cubic, Iterative, OneShot, Schedule

NAMED = [
    (OneShot(0.5), [(0, 0.5)]),
    (OneShot(0.5, at=3), [(3, 0.5)]),
    (Constant(0.9), [(0, 0.9)]),
    (Iterative(0.875, 3, every=10), [(10, 0.5), (20, 0.75), (30, 0.875)]),
    (Iterative(0.75, 2, every=5, begin=0, rewind=0), [(0, 0.5), (5, 0.75)]),
    (Iterative(1 - 0.8**2, 2, every=1), [(1, 0.2), (2, 0.36)]),  # Frankle and Carbin's fifths
    (Cubic(0.8, end=20, every=10), [(0, 0.0), (10, 0.7), (20, 0.8)]),
    (Cubic(0.9, end=13, every=5, begin=3, initial=0.1), [(3, 0.1), (8, 0.8), (13, 0.9)]),
    (Cubic(0.8, end=15, every=10), [(0, 0.0), (10, 0.8 * (1 - 1 / 27)), (15, 0.8)]),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "expected"), NAMED, ids=lambda value: str(value)[:24])
def test_ratios_and_steps(schedule: Schedule, expected: list[tuple[int, float]]) -> None:
    assert [step for step, _ in schedule.prunings] == [step for step, _ in expected]
    assert [ratio for _, ratio in schedule.prunings] == pytest.approx([r for _, r in expected])
    assert schedule.prunings[-1][0] == schedule.last
    assert schedule == eval(repr(schedule))  # and it is frozen, so it can be a key
    assert hash(schedule) is not None


def test_numbers_of_numpy_become_numbers_of_python() -> None:
    two, five = np.int64(2), np.int64(5)
    assert repr(OneShot(np.float32(0.5), at=two)) == "OneShot(ratio=0.5, at=2)"
    rounds = Iterative(np.float32(0.75), two, every=five, begin=five, rewind=two)
    assert repr(rounds) == "Iterative(ratio=0.75, rounds=2, every=5, begin=5, rewind=2)"
    cubic = Cubic(np.float32(0.75), end=five, every=two, begin=two, initial=np.float32(0.5))
    assert repr(cubic) == "Cubic(ratio=0.75, end=5, every=2, begin=2, initial=0.5)"


def test_a_long_schedule_prints_short() -> None:
    shown = str(Cubic(0.9, end=10_000, every=100)).splitlines()
    assert len(shown) == 13
    assert shown[0] == "Cubic(ratio=0.9, end=10000, every=100, begin=0, initial=0.0)"
    assert shown[2] == "  step      100:   2.67%"
    assert shown[-2:] == ["  ... 90 more", "  step   10,000:  90.00%"]


def test_a_schedule_draws_itself(tmp_path: Path) -> None:
    files = Iterative(0.9, 4, every=10).plot(tmp_path / "plots" / "schedule")
    assert [file.suffix for file in files] == [".png", ".svg"]
    text = files[1].read_text()
    assert "Iterative(ratio=0.9" in text.replace("\n", " ")
    assert "ratio pruned" in text


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OneShot(90), "for 90 per cent write 0.9"),
        (lambda: OneShot(0.5, at=-1), "at must be a whole number from 0"),
        (lambda: Constant("a"), "ratio must be a number from 0 to 1"),
        (lambda: Iterative(0.5, 0, every=1), "rounds must be a whole number from 1"),
        (lambda: Iterative(0.5, 2, every=5, rewind=6), "write a step up to 5"),
        (lambda: Cubic(0.5, end=10, initial=0.6), "the schedule goes down, from initial=0.6"),
        (lambda: Cubic(0.5, end=10, begin=10), "end must be a whole number from 11"),
    ],
)
def test_bad_schedules_are_refused(make: object, said: str) -> None:
    with pytest.raises(sc.InvalidArgumentError, match=re.escape(said)):
        make()  # type: ignore[operator]
