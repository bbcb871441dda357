import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.errors import InvalidArgumentError
from secateurs.results import wilson_interval


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(correct: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.5, 0.999))
def test_ends_solve_the_equation_they_come_from(count: int, part: float, level: float) -> None:
    from statistics import NormalDist

    correct = part * count
    z = NormalDist().inv_cdf((1 + level) / 2)
    low, high = wilson_interval(correct, count, level)
    p = correct / count
    assert 0 <= low <= p + 1e-12 and p - 1e-12 <= high <= 1
    for end in (low, high):
        assert math.isclose((p - end) ** 2, z * z * end * (1 - end) / count, abs_tol=1e-9)


def test_ends_are_exact_at_none_and_all() -> None:
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0), "at least one image"),
        ((5, 4), "between 0 and count=4"),
        ((-1, 4), "between 0 and count=4"),
        ((math.nan, 4), "between 0 and count=4"),
        ((1, 4, 95), r"strictly between 0 and 1, got 95; write confidence=0\.95"),
    ],
)
def test_refuses_what_cannot_be(arguments: tuple[float, ...], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        wilson_interval(*arguments)  # type: ignore[arg-type]
