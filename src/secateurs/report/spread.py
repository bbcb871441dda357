"""Positions of labels that do not overlap."""

import math
from collections.abc import Sequence


def spread(
    positions: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf
) -> list[float]:
    """Move positions as little as possible so that neighbours are at least `gap` apart.

    Minimises the sum of squared moves with the order kept (equal positions keep the order in which
    they were given). With t_i = y_i - i * gap for sorted y, that is isotonic regression of t,
    which pooling adjacent violators solves exactly; its solution clipped to the bounds is exact
    with bounds.

    Args:
        positions: The wanted positions.
        gap: The smallest distance between two.
        low: The lowest position.
        high: The highest position. If not all fit between `low` and `high`, they are `gap` apart
            around the middle, and exceed both bounds.

    Returns:
        The new positions, in the order of `positions`.

    Example:
        >>> spread([5.0, 5.0, 9.0], gap=2.0)
        [4.0, 6.0, 9.0]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    last = max(len(order) - 1, 0) * gap
    if high - low < last:
        middle = (low + high) / 2
        low, high = middle - last / 2, middle + last / 2
    blocks: list[tuple[float, int]] = []  # mean and size
    for rank, index in enumerate(order):
        mean, size = positions[index] - rank * gap, 1
        while blocks and blocks[-1][0] >= mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    moved = [0.0] * len(order)
    rank = 0
    for mean, size in blocks:
        start = min(max(mean, low), high - last)
        for _ in range(size):
            moved[order[rank]] = start + rank * gap
            rank += 1
    return moved
