"""A ratio for each layer from what pruning it alone costs."""

import heapq
import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from secateurs._validation import check_choice, check_ratio
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.results import SensitivityRow

COSTS = ("divergence", "loss", "accuracy")
"""What a layer's pruning costs: from the dense network's outputs, or from labels (the last two)."""

_STEPS = 400  # points at which a cost is looked at between two measured ratios
_LEAST = 1e-9  # a cost that is not positive, which is noise, counts as this


def propose_ratios(
    rows: Sequence[SensitivityRow], p_prune: float, cost: str = "divergence"
) -> dict[str, float]:
    """Choose how much of each layer is pruned, so that all costs together are least.

    Costs of layers are taken to add up. With c_l(k) the cost of k pruned units in layer l, this
    minimises the sum of c_l(k_l) over all k_l that add up to ``round(p_prune * n)``. Between
    measured ratios a cost is interpolated as a power of the ratio, and each curve is replaced by
    its lower convex hull; then taking the cheapest next step, over and over, gives the optimum
    (B. Fox, "Discrete optimization via marginal analysis", Management Science 13 (1966), 210-216).
    No layer is pruned further than it was measured.

    ``"divergence"`` needs no labels, so it may be measured on any images. ``"loss"`` and
    ``"accuracy"`` read labels: accuracy on the same images, reported later, would be too high.

    Args:
        rows: from `sensitivity`.
        p_prune: the ratio of units in all.
        cost: ``"divergence"``, ``"loss"`` (its increase) or ``"accuracy"`` (its drop).

    Returns:
        For each layer a ratio r, of which ``round(r * n_l)`` is exactly its count, in the order of
        the rows; what `secateurs.repair.allocate` takes.

    Raises:
        InvalidArgumentError: there are no rows, a cost needs labels that were not read, or more is
            to be pruned than was measured.
    """
    check_choice("cost", cost, COSTS)
    curves = _curves(rows, cost)
    sizes = {row.layer: row.units for row in rows}
    total = round(check_ratio("p_prune", p_prune) * sum(sizes.values()))
    most = {name: round(max(curves[name]) * sizes[name]) for name in sizes}
    if total > sum(most.values()):
        raise InvalidArgumentError(
            f"{total:,} of {sum(sizes.values()):,} units are to be pruned, but the highest ratios "
            f"that were measured prune {sum(most.values()):,}: measure higher ones, ",
            Argument("ratios", [0.5, 0.9, 0.99]),
        )
    counts = _cheapest({name: _steps(curves[name], sizes[name]) for name in sizes}, total)
    return {name: counts[name] / size if size else 0.0 for name, size in sizes.items()}


def _curves(rows: Sequence[SensitivityRow], cost: str) -> dict[str, dict[float, float]]:
    """For each layer its cost at each ratio, never falling as the ratio rises."""
    if not rows:
        raise InvalidArgumentError("there are no rows: measure the sensitivity first")
    if cost != "divergence" and any(row.labels != "data" for row in rows):
        raise InvalidArgumentError(
            Argument("cost", cost), " needs labels, which this run did not read: write ",
            Argument("cost", "divergence"),
        )  # fmt: skip
    found: dict[str, dict[float, float]] = {}
    for row in sorted(rows, key=lambda row: row.p_prune):
        curve = found.setdefault(row.layer, {})
        values = {
            "divergence": row.divergence,
            "loss": row.loss - row.dense_loss,
            "accuracy": -row.change,
        }
        value = values[cost]
        value = math.inf if math.isnan(value) else value  # the network is broken
        curve[row.p_prune] = max([_LEAST, value, *curve.values()])
    return {row.layer: found[row.layer] for row in rows}


def _cost_at(curve: dict[float, float], ratio: float) -> float:
    """The cost at any ratio above 0, up to the highest that was measured."""
    points = list(curve.items())
    last = min(bisect_left(list(curve), ratio), len(points) - 1)
    low, high = points[max(last - 1, 0)], points[last]
    if last == 0 and len(points) > 1:  # below all that was measured: as above it, but convex
        low, high = points[:2]
    if math.isinf(low[1]) or (math.isinf(high[1]) and ratio > low[0]):
        return math.inf
    power = 1.0
    if high[0] > low[0] and math.isfinite(high[1]):
        power = math.log(high[1] / low[1]) / math.log(high[0] / low[0])
    return low[1] * (ratio / low[0]) ** (power if ratio > low[0] else max(power, 1.0))


def _steps(curve: dict[float, float], units: int) -> list[tuple[float, int]]:
    """The lower convex hull of a curve: steps of a cost for each unit, and a number of units."""
    highest = max(curve)
    marks = {round(highest * units * i / _STEPS) for i in range(_STEPS + 1)}
    marks |= {round(ratio * units) for ratio in curve}
    hull: list[tuple[int, float]] = []
    for count in sorted(marks):
        point = (count, _cost_at(curve, min(count / units, highest)) if count else 0.0)
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [(_slope(a, b), b[0] - a[0]) for a, b in pairwise(hull)]


def _slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0]) if math.isfinite(b[1]) else math.inf


def _cheapest(steps: dict[str, list[tuple[float, int]]], total: int) -> dict[str, int]:
    """Take the cheapest steps until there are ``total`` units; of the last one, a part."""
    counts = dict.fromkeys(steps, 0)
    waiting = [
        (own[0][0], order, name, 0) for order, (name, own) in enumerate(steps.items()) if own
    ]
    heapq.heapify(waiting)
    left = total
    while left:
        _, order, name, number = heapq.heappop(waiting)
        own = steps[name]
        taken = min(left, own[number][1])
        counts[name] += taken
        left -= taken
        if number + 1 < len(own):
            heapq.heappush(waiting, (own[number + 1][0], order, name, number + 1))
    return counts
