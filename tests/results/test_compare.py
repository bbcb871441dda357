import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from secateurs.errors import InvalidArgumentError
from secateurs.results import wilson_interval
from secateurs.results.compare import holm, paired_test, success_interval

HITS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.sampled_from("01"), min_size=n, max_size=n).map("".join)] * 2)
)


def draw(rng: random.Random, chances: list[float]) -> str:
    return "".join("1" if rng.random() < chance else "0" for chance in chances)


@given(HITS)
def test_one_seed_is_mcnemars_exact_test(pair: tuple[str, str]) -> None:
    ours, theirs = pair
    found = paired_test(ours, theirs)
    gains = sum(a > b for a, b in zip(ours, theirs, strict=True))
    losses = sum(a < b for a, b in zip(ours, theirs, strict=True))
    assert found.discordant == gains + losses and found.count == len(ours)
    expected = stats.binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert found.difference == pytest.approx(100 * (gains - losses) / len(ours))


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(2, 5), st.randoms(use_true_random=False))
def test_several_seeds_are_the_exact_permutation_test(
    count: int, seeds: int, rng: random.Random
) -> None:
    ours = [draw(rng, [0.6] * count) for _ in range(seeds)]
    theirs = [draw(rng, [0.4] * count) for _ in range(seeds)]
    d = [
        sum(a == "1" for a in mine) - sum(b == "1" for b in other)
        for mine, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    ]
    sums = [
        abs(sum(map(math.prod, zip(d, signs, strict=True))))
        for signs in itertools.product((1, -1), repeat=count)
    ]
    expected = sum(value >= abs(sum(d)) for value in sums) / len(sums)
    assert paired_test(ours, theirs).p == pytest.approx(expected, rel=1e-12)


def test_agrees_with_scipys_permutation_test() -> None:
    rng = random.Random(3)
    ours, theirs = ([draw(rng, [p] * 12) for _ in range(3)] for p in (0.6, 0.3))
    sums = [np.array([list(map(int, text)) for text in side]).sum(0) for side in (ours, theirs)]
    expected = stats.permutation_test(
        sums, lambda a, b: np.sum(a - b), permutation_type="samples", n_resamples=10**5
    )
    assert paired_test(ours, theirs).p == pytest.approx(expected.pvalue, rel=1e-9)


def test_many_images_have_the_normal_limit_of_the_exact_distribution() -> None:
    rng = random.Random(0)
    ours, theirs = ([draw(rng, [p] * 600) for _ in range(3)] for p in (0.51, 0.49))
    exact = paired_test(ours, theirs).p
    limit = paired_test(ours, theirs, exact=0).p
    assert 0.001 < exact < 0.9 and limit != exact
    assert limit == pytest.approx(exact, abs=0.001)


def test_images_are_the_unit_not_their_outcomes() -> None:
    one, other = "1111000000", "0000000000"
    # The same outcomes again under other seeds are no further evidence.
    assert paired_test([one] * 5, [other] * 5).p == paired_test(one, other).p == 0.125
    again = success_interval([one] * 5)
    assert (again.low, again.high) == pytest.approx(
        [100 * end for end in wilson_interval(4, 10)], abs=1e-9
    )


@given(HITS)
def test_one_seed_has_wilsons_interval(pair: tuple[str, str]) -> None:
    hits, _ = pair
    found = success_interval(hits)
    low, high = wilson_interval(hits.count("1"), len(hits))
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=1e-9)
    assert found == success_interval([hits])


def test_independent_seeds_narrow_the_interval_up_to_as_many_images() -> None:
    hits = ["1100000000", "0011000000", "0000110000"]
    found = success_interval(hits)
    low, high = wilson_interval(6, 30)
    assert found.value == pytest.approx(20)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize("digit", "01")
def test_nothing_and_everything_keep_a_width(digit: str) -> None:
    found = success_interval([digit * 50] * 3)
    assert found.high - found.low == pytest.approx(7.13, abs=0.01)
    versus = paired_test([digit * 50] * 3, [digit * 50] * 3)
    assert versus.p == 1.0 and versus.low < -5 and versus.high > 5


@pytest.mark.parametrize("right", [0, 1, 25, 50])
def test_equal_outcomes_exclude_only_what_no_flip_in_so_many_images_excludes(right: int) -> None:
    hits = "1" * right + "0" * (50 - right)
    for outcomes in (hits, [hits] * 3):
        versus = paired_test(outcomes, outcomes)
        assert (versus.low, versus.high) == pytest.approx((-7.13, 7.13), abs=0.01)


@settings(max_examples=60)
@given(HITS)
def test_the_difference_turns_round_with_its_sides(pair: tuple[str, str]) -> None:
    there, back = paired_test(*pair), paired_test(*reversed(pair))
    assert there.p == back.p and there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert there.low - 1e-9 <= there.difference <= there.high + 1e-9
    assert there.low >= -100 - 1e-9 and there.high <= 100 + 1e-9


@pytest.mark.parametrize("table", [(36, 12, 2, 0), (10, 25, 5, 160), (43, 0, 8, 49)])
def test_one_seed_has_newcombes_interval_for_the_paired_difference(
    table: tuple[int, int, int, int],
) -> None:
    # His own terms: both, the first alone, the second alone, neither.
    both, first, second, neither = table
    n = sum(table)
    p, q = (both + first) / n, (both + second) / n
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = (both * neither - first * second) / math.sqrt(margins) if margins else 0.0
    (low, high), (other_low, other_high) = (
        stats.binomtest(k, n).proportion_ci(method="wilson") for k in (both + first, both + second)
    )
    down, up = p - low, other_high - q
    below = math.sqrt(down**2 - 2 * phi * down * up + up**2)
    up, down = high - p, q - other_low
    above = math.sqrt(up**2 - 2 * phi * up * down + down**2)
    found = paired_test(
        "1" * (both + first) + "0" * (second + neither),
        "1" * both + "0" * first + "1" * second + "0" * neither,
    )
    ends = (100 * (p - q - below), 100 * (p - q + above))
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize(("count", "seeds", "rate"), [(40, 1, 0.3), (40, 3, 0.1), (25, 2, 0.03)])
def test_intervals_cover_what_they_promise(count: int, seeds: int, rate: float) -> None:
    rng = random.Random(1)
    covered = covered_difference = rejected = 0
    for _ in range(400):
        chances = [rng.betavariate(rate, 1 - rate) for _ in range(count)]
        ours, theirs = ([draw(rng, chances) for _ in range(seeds)] for _ in range(2))
        found, versus = success_interval(ours), paired_test(ours, theirs)
        covered += found.low <= 100 * rate <= found.high
        covered_difference += versus.low <= 0 <= versus.high
        rejected += versus.p <= 0.05
    assert covered >= 0.92 * 400 and covered_difference >= 0.93 * 400
    assert rejected <= 0.065 * 400


def test_a_real_gain_is_found() -> None:
    rng = random.Random(2)
    hardness = [rng.random() for _ in range(300)]
    ours = [draw(rng, [min(1.0, 0.5 * h + 0.08) for h in hardness]) for _ in range(3)]
    theirs = [draw(rng, [0.5 * h for h in hardness]) for _ in range(3)]
    found = paired_test(ours, theirs)
    assert found.p < 0.01 and found.low > 0 and found.low < 8 < found.high


def test_holm_by_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_step_by_step(values: list[float], level: float) -> None:
    rejected = set()
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        if values[index] * (len(values) - rank) > level:
            break
        rejected.add(index)
    assert rejected == {i for i, p in enumerate(holm(values)) if p <= level}


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ("", "", "no outcomes"),
        ([], [], "no outcomes"),
        ("101", "10", r"1 x 3 outcomes with and 1 x 2 without"),
        (["10", "11"], ["10"], r"2 x 2 outcomes with and 1 x 2 without"),
        (["10", "110"], ["10", "11"], "equal length .* lengths 2, 3"),
        ("1x", "10", "a 0 or a 1"),
    ],
)
def test_outcomes_that_do_not_pair(
    ours: str | list[str], theirs: str | list[str], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        paired_test(ours, theirs)
