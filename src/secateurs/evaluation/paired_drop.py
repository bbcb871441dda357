"""Whether accuracy has dropped by less than a margin: a test on pairs of outcomes of one image."""

import math
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

_MOST = 500.0  # flips from which on the normal limit is as good as the exact size
_GRID = 20  # probabilities of a flip at which the size is computed
_FAR = 6.5  # standard deviations that are summed over
_HALVINGS = 14


def drop_statistic(lost: Tensor, won: Tensor, count: int, margin: float) -> Tensor:
    r"""Tango's score statistic of the hypothesis that the drop of accuracy is ``margin``.

    With b images lost and c won of n, and the probability q of a win that is most likely where the
    drop is d,

        z = (b - c - n d) / sqrt(n (2 q + d (1 - d))),
        q = (sqrt(B^2 + 8 n c d (1 - d)) - B) / 4 n,    B = (2 n - b + c) d - b - c.

    Small values speak for a drop below ``margin``.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine 17 (1998), 891-908.

    Args:
        lost: images that the dense network gets right and the pruned one wrong, any shape.
        won: images that it gets wrong and the pruned one right.
        count: images in all.
        margin: between 0 and 1.
    """
    lost, won = lost.double(), won.double()
    b = (2 * count - lost + won) * margin - lost - won
    root = (b * b + 8 * count * won * margin * (1 - margin)).sqrt()
    q = ((root - b) / (4 * count)).clamp(min=0)
    return (lost - won - count * margin) / (count * (2 * q + margin * (1 - margin))).sqrt()


@cache
def critical_value(count: int, margin: float, level: float) -> float:
    """How far below 0 `drop_statistic` must lie for a claim that is wrong as rarely as ``level``.

    Its size, the probability of a claim where the drop is ``margin``, is computed exactly, for 20
    probabilities of a flip from the least possible one on; the largest counts. Where more than 500
    flips are expected, the normal quantile is taken. This makes the test valid for small counts,
    where the quantile alone is not (Hsueh, Liu and Chen, "Unconditional exact tests for equivalence
    or noninferiority for paired binary endpoints", Biometrics 57 (2001), 478-483).

    Args:
        count: images.
        margin: between 0 and 1.
        level: the probability of a wrong claim that is allowed.
    """
    low = NormalDist().inv_cdf(1 - level)
    tables = _tables(count, margin)

    def size(value: float) -> float:
        return max((float(p[z <= -value].sum()) for z, p in tables), default=0.0)

    if size(low) <= level:
        return low
    high = low + 3.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) > level else (low, middle)
    return high


def claims(lost: float, won: float, count: int, margin: float, level: float) -> bool:
    """Whether the outcomes show, at this level, that the drop is below ``margin``.

    Example:
        >>> claims(0, 0, 300, 0.01, 0.05), claims(0, 0, 290, 0.01, 0.05)
        (True, False)
        >>> claims(14, 8, 1000, 0.02, 0.05), claims(20, 8, 1000, 0.02, 0.05)
        (True, False)
    """
    return _statistic(lost, won, count, margin) <= -critical_value(count, margin, level)


def upper_limit(lost: int, won: int, count: int, margin: float, level: float) -> float:
    """The smallest drop that is not excluded; below ``margin`` exactly where `claims` holds."""
    value = critical_value(count, margin, level)
    low, high = max((lost - won) / count, 1e-12), 1.0 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        excluded = _statistic(lost, won, count, middle) <= -value
        low, high = (low, middle) if excluded else (middle, high)
    return high


def images_needed(lost: float, won: float, margin: float, level: float) -> int | None:
    """About how many images a claim needs where such shares of the images flip.

    Args:
        lost: the share of images that are lost.
        won: the share that are won.
        margin: the drop that is to be excluded.
        level: the probability of a wrong claim that is allowed.

    Returns:
        The number; None where the drop is not below ``margin``, so that no number suffices.
    """
    if lost - won >= margin:
        return None
    value, count = NormalDist().inv_cdf(1 - level), least_images(margin, level)

    def suffices(n: int) -> bool:
        return _statistic(lost * n, won * n, n, margin) <= -value

    high = count
    while not suffices(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return max(high, count)


def least_images(margin: float, level: float) -> int:
    """The images that a claim needs even where none flips; of many, to a thousandth.

    Example:
        >>> least_images(0.01, 0.05), least_images(0.01, 0.05 / 7)
        (299, 595)
    """
    # Fewer are too few both for the exact size, (1 - margin)^n, and for the normal quantile.
    square = NormalDist().inv_cdf(1 - level) ** 2
    exact, normal = math.log(level) / math.log1p(-margin), square * (1 - margin) / margin
    count = math.ceil(max(exact, normal))
    while not claims(0, 0, count, margin, level):
        count += max(1, count // 1000)
    return count


def least_margin(count: int, level: float) -> float:
    """The smallest margin, in thousandths, that so many images can show where none flips."""
    square = NormalDist().inv_cdf(1 - level) ** 2
    thousandths = math.ceil(1000 * max(1 - level ** (1 / count), square / (count + square)))
    while not claims(0, 0, count, thousandths / 1000, level):
        thousandths += 1
    return thousandths / 1000


def _statistic(lost: float, won: float, count: int, margin: float) -> float:
    given = torch.tensor([lost, won], dtype=torch.float64)
    return float(drop_statistic(given[0], given[1], count, margin))


def _tables(count: int, margin: float) -> list[tuple[Tensor, Tensor]]:
    """The statistic of each outcome, and its probability, for several probabilities of a flip."""
    most = min(1.0, _MOST / count)
    if most <= margin:
        return []
    shares = [margin * (most / margin) ** (i / (_GRID - 1)) for i in range(_GRID)]
    found: list[tuple[Tensor, Tensor]] = []
    for share in shares:
        lost = _window(count, (share + margin) / 2)[:, None]
        won = _window(count, max((share - margin) / 2, 0.0))[None, :]
        same = count - lost - won
        possible = same >= 0
        same = same.clamp(min=0)
        logs = torch.lgamma(torch.tensor(count + 1.0, dtype=torch.float64))
        for number, p in (
            (lost, (share + margin) / 2),
            (won, max((share - margin) / 2, 0.0)),
            (same, 1 - share),
        ):
            logs = logs - torch.lgamma(number + 1) + torch.xlogy(number, torch.tensor(p).double())
        probability = torch.where(possible, logs.exp(), 0.0)
        found.append((drop_statistic(lost, won, count, margin), probability))
    return found


def _window(count: int, p: float) -> Tensor:
    """The counts that are likely enough to matter, for a binomial of this probability."""
    middle, spread = count * p, _FAR * math.sqrt(count * p * (1 - p)) + _FAR
    first, last = max(0, math.floor(middle - spread)), min(count, math.ceil(middle + spread))
    return torch.arange(first, last + 1, dtype=torch.float64)
