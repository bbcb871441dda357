"""The test of a drop is wrong no more often than it says, also with few images."""

import math
from itertools import product

import pytest
import torch

from secateurs.evaluation.paired_drop import (
    claims,
    drop_statistic,
    images_needed,
    least_images,
    least_margin,
    upper_limit,
)


def wrong_claims(count: int, margin: float, level: float, share: float) -> float:
    """The probability of a claim where the drop is the margin: all outcomes, one by one."""
    p_lost, p_won = (share + margin) / 2, (share - margin) / 2
    total = 0.0
    for lost, won in product(range(count + 1), repeat=2):
        if lost + won <= count and claims(lost, won, count, margin, level):
            ways = math.comb(count, lost) * math.comb(count - lost, won)
            total += ways * p_lost**lost * p_won**won * (1 - share) ** (count - lost - won)
    return total


@pytest.mark.parametrize(("count", "margin", "level"), [(30, 0.1, 0.05), (24, 0.2, 0.01)])
def test_a_wrong_claim_is_as_rare_as_it_says(count: int, margin: float, level: float) -> None:
    sizes = [wrong_claims(count, margin, level, share) for share in (margin, 0.25, 0.4, 0.7, 1.0)]
    assert max(sizes) <= level * 1.02
    assert max(sizes) > level / 3  # it is not timid either


def test_the_statistic_has_the_most_likely_nuisance() -> None:
    lost, won, count, margin = 9, 4, 60, 0.05
    q = torch.linspace(1e-6, 0.4, 400_001, dtype=torch.float64)
    likelihood = lost * (q + margin).log() + won * q.log()
    likelihood += (count - lost - won) * (1 - 2 * q - margin).log()
    best = q[likelihood.argmax()]
    expected = (lost - won - count * margin) / (count * (2 * best + margin * (1 - margin))).sqrt()
    found = drop_statistic(torch.tensor(lost), torch.tensor(won), count, margin)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


def test_the_limit_is_below_the_margin_where_there_is_a_claim() -> None:
    for lost in range(12):
        limit = upper_limit(lost, 3, 400, 0.02, 0.05)
        assert (limit < 0.02) == claims(lost, 3, 400, 0.02, 0.05)
        assert limit > (lost - 3) / 400


@pytest.mark.parametrize("margin", [0.01, 0.04, 0.3])
@pytest.mark.parametrize("level", [0.05, 0.05 / 7])
def test_the_least_images_are_those_that_claim_where_none_flips(
    margin: float, level: float
) -> None:
    least = least_images(margin, level)
    assert claims(0, 0, least, margin, level)
    assert not claims(0, 0, least - 1, margin, level)
    shown = least_margin(least, level)
    assert shown <= margin and claims(0, 0, least, shown, level)
    assert not claims(0, 0, least, shown - 0.001, level)


def test_how_many_images_a_claim_needs() -> None:
    needed = images_needed(0.02, 0.015, 0.01, 0.05)
    assert needed is not None
    enough, few = round(1.1 * needed), round(0.9 * needed)
    assert claims(0.02 * enough, 0.015 * enough, enough, 0.01, 0.05)
    assert not claims(0.02 * few, 0.015 * few, few, 0.01, 0.05)
    assert images_needed(0.04, 0.01, 0.02, 0.05) is None
