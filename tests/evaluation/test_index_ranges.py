"""What is left of a data set, and who sees which part of it."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.evaluation.index_ranges import IndexRange, remaining, split
from secateurs.evaluation.partial_results import Progress, merged

KEYS = ("a", "b", "c")


@st.composite
def sweeps(draw: Any) -> tuple[int, dict[str, Progress]]:
    total = draw(st.integers(1, 40))
    pairs = st.tuples(st.integers(0, total), st.integers(0, total))
    progress = {
        key: Progress(done=merged((a, b) for a, b in draw(st.lists(pairs, max_size=4)) if a < b))
        for key in draw(st.sets(st.sampled_from(KEYS)))
    }
    return total, progress


def seen(ranges: list[IndexRange]) -> list[tuple[str, int]]:
    """Every image that a variant sees, as often as it sees it."""
    return [
        (key, position)
        for each in ranges
        for key in each.keys
        for position in range(each.start, each.stop or 0)
    ]


@given(sweeps())
def test_what_is_left_is_what_is_not_done(case: tuple[int, dict[str, Progress]]) -> None:
    total, progress = case
    done = {
        (key, position)
        for key, each in progress.items()
        for start, stop in each.done
        for position in range(start, stop)
    }
    found = remaining(progress, KEYS, total)
    assert sorted([*seen(found), *done]) == sorted((k, i) for k in KEYS for i in range(total))
    assert all((one.stop, one.keys) != (two.start, two.keys) for one, two in pairwise(found))


@given(sweeps(), st.integers(1, 9), st.integers(1, 9))
def test_every_image_has_one_rank(
    case: tuple[int, dict[str, Progress]], ranks: int, batch_size: int
) -> None:
    total, progress = case
    whole = remaining(progress, KEYS, total)
    shares = split(whole, ranks, batch_size)
    assert len(shares) == ranks
    assert sorted(image for each in shares for image in seen(each)) == sorted(seen(whole))
    sizes = [len(seen(each)) for each in shares]
    # Each has its part, give or take a batch.
    assert max(sizes) <= len(seen(whole)) / ranks + batch_size * len(KEYS)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (1, [[(0, 46)]]),
        (2, [[(0, 24)], [(24, 46)]]),
        (4, [[(0, 16)], [(16, 24)], [(24, 40)], [(40, 46)]]),
        (8, [[(0, 8)], [(8, 16)], [(16, 24)], [], [(24, 32)], [(32, 40)], [(40, 46)], []]),
    ],
)
def test_shares_are_cut_where_batches_are(
    ranks: int, expected: list[list[tuple[int, int]]]
) -> None:
    shares = split(remaining({}, ["a"], 46), ranks, 8)
    assert [[(each.start, each.stop) for each in one] for one in shares] == expected


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=6))
def test_merged_ranges_hold_the_same_indices(pairs: list[tuple[int, int]]) -> None:
    pairs = [(start, start + size) for start, size in pairs]
    found = merged(pairs)
    assert {i for a, b in pairs for i in range(a, b)} == {i for a, b in found for i in range(a, b)}
    assert all(one[1] < two[0] for one, two in pairwise(found))
