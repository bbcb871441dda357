import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.report.labels import spread

NUMBERS = st.floats(-1e3, 1e3, allow_nan=False)
POSITIONS = st.lists(NUMBERS | st.sampled_from([0.0, 10.0]), max_size=12)


@given(POSITIONS, st.floats(0.1, 50), NUMBERS, st.floats(0, 2e3))
def test_labels_never_overlap_and_stay_inside_where_there_is_room(
    positions: list[float], gap: float, low: float, room: float
) -> None:
    high = low + room
    places = spread(positions, gap, low, high)
    ordered = sorted(places)
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(ordered))
    if (len(positions) - 1) * gap <= room and positions:
        assert low - 1e-6 <= ordered[0] and ordered[-1] <= high + 1e-6
    elif positions:
        assert ordered[0] + ordered[-1] == pytest.approx(low + high, abs=1e-6)


@given(POSITIONS, st.floats(0.1, 50))
def test_order_is_kept_also_among_equals(positions: list[float], gap: float) -> None:
    places = spread(positions, gap)
    by_place = sorted(range(len(places)), key=lambda i: places[i])
    assert by_place == sorted(range(len(places)), key=lambda i: positions[i])


@given(POSITIONS, st.floats(0.1, 50), st.randoms(use_true_random=False))
def test_no_other_positions_move_less(positions: list[float], gap: float, rng: object) -> None:
    places = spread(positions, gap)
    cost = sum((a - b) ** 2 for a, b in zip(places, positions, strict=True))
    # A convex problem: no small feasible step from the answer may cost less.
    order = sorted(range(len(places)), key=lambda i: places[i])
    for first in range(len(order)):
        for last in range(first, len(order)):
            for step in (-0.01, 0.01):
                moved = list(places)
                for rank in range(first, last + 1):
                    moved[order[rank]] += step
                inside = [moved[i] for i in order]
                if all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(inside)):
                    other = sum((a - b) ** 2 for a, b in zip(moved, positions, strict=True))
                    assert other >= cost - 1e-6


def test_free_labels_stay_and_crowded_ones_share_the_move() -> None:
    assert spread([1.0, 5.0, 30.0], 2.0) == [1.0, 5.0, 30.0]
    assert spread([5.0, 5.0, 5.0], 2.0) == [3.0, 5.0, 7.0]
    assert spread([0.0, 0.5], 2.0, low=0.0) == [0.0, 2.0]
    assert spread([], 2.0) == []
