"""How many units each layer loses, exact in total: globally ranked, in shares, or by ratios."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from secateurs._io.text import quoted
from secateurs._tensors.float_keys import Scores
from secateurs._validation import check_ratio, nearest
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.selection.threshold import candidate_masks

Counts = Mapping[str, int]


def least_kept(share: float, count: int) -> int:
    """How many of so many units a layer keeps at least, by a share: 7 of 100 for 0.07.

    The share is taken as the decimal number that was written: as a float, 0.07 of 100 is more than
    7.
    """
    return math.ceil(Fraction(share).limit_denominator(10**9) * count)


def erk_shares(shapes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """What share of a layer is kept, up to a factor, by the Erdős-Rényi-Kernel rule.

    It is in proportion to (n_in + n_out + w + h) / (n_in * n_out * w * h), the sum of the
    dimensions over their product (Evci et al. 2020, section 3, equation 1; Mocanu et al. 2018
    without kernels). So small layers stay dense.
    """
    return {name: sum(shape) / max(math.prod(shape), 1) for name, shape in shapes.items()}


def check_room(total: int, most: Counts) -> None:
    """Check that so many units can be pruned.

    Raises:
        InvalidArgumentError: what the layers keep at least leaves fewer.
    """
    if total > sum(most.values()):
        raise InvalidArgumentError(
            Argument("keep_at_least"),
            f" leaves {sum(most.values())} units to prune, which is less than {total}: lower it, "
            "or prune less",
        )


def global_counts(scores: list[Scores], total: int, most: Counts) -> dict[str, int]:
    """How many of each layer are among the smallest; where one must keep more, others lose more."""
    counts: dict[str, int] = {}
    free = scores
    while True:
        left = total - sum(counts.values())
        masks, _ = candidate_masks(free, left) if free else ([], None)
        found = {s.name: int(m.sum()) for s, m in zip(free, masks, strict=True)}
        over = {name for name, count in found.items() if count > most[name]}
        if not over:
            return counts | found
        counts |= {name: most[name] for name in over}
        free = [one for one in free if one.name not in over]


def counts_by_shares(
    sizes: Counts, total: int, most: Counts, shares: Mapping[str, float]
) -> dict[str, int]:
    """Counts of which each layer keeps a share in proportion to ``shares``, within its bounds."""
    kept = sum(sizes.values()) - total
    low, high = 0.0, 1.0
    least = {name: sizes[name] - most[name] for name in sizes}

    def wanted(scale: float) -> dict[str, float]:
        return {n: min(max(scale * shares[n] * sizes[n], least[n]), sizes[n]) for n in sizes}

    while sum(wanted(high).values()) < kept:
        high *= 2
        if math.isinf(high):
            break
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(wanted(middle).values()) < kept else (low, middle)
    exact = wanted(high)
    whole = {name: math.floor(value) for name, value in exact.items()}
    # Those that lost most by rounding down get what is left.
    behind = sorted(exact, key=lambda name: whole[name] - exact[name])
    left = kept - sum(whole.values())
    while left:
        step = 1 if left > 0 else -1
        for name in behind if step > 0 else behind[::-1]:
            if left and least[name] <= whole[name] + step <= sizes[name]:
                whole[name] += step
                left -= step
    return {name: sizes[name] - whole[name] for name in sizes}


def ratios_alone() -> InvalidArgumentError:
    """What is wrong where each parameter has a ratio, and p_prune or a scope is given, too."""
    return InvalidArgumentError(
        Argument("ratios"), " says how much of each parameter is pruned: leave out ",
        Argument("p_prune"), " and ", Argument("scope"),
    )  # fmt: skip


def ratios_by_parameter(names: Mapping[str, str], given: Mapping[str, float]) -> dict[str, float]:
    """The ratio of each parameter that competes.

    Args:
        names: the parameters, by all names that each of them has.
        given: the ratio of each, by one of its names or by that of its layer.

    Raises:
        InvalidArgumentError: a name is unknown, a parameter has no ratio or two, or a ratio is
            none.
    """
    found: dict[str, float] = {}
    for name, ratio in given.items():
        full = names.get(name, names.get(f"{name}.weight"))
        if full is None:
            raise InvalidArgumentError(
                f"there is a ratio for {quoted(name)}, which does not compete{nearest(name, names)}"
            )
        if full in found:
            raise InvalidArgumentError(f"there are two ratios for {full}: leave one out")
        found[full] = check_ratio(f"the ratio of {quoted(name)}", ratio)
    missing = next((name for name in names.values() if name not in found), None)
    if missing is not None:
        raise InvalidArgumentError(
            f"there is no ratio for {missing}: add it, or write ", Argument("exclude", missing)
        )
    return found


def counts_by_ratios(sizes: Counts, most: Counts, given: Mapping[str, float]) -> dict[str, int]:
    """Counts of layers that each have a ratio of their own.

    Args:
        sizes: how many units each parameter has.
        most: how many of them may be pruned.
        given: the ratio of each parameter, by its name or by that of its layer.

    Raises:
        InvalidArgumentError: a name is unknown, a parameter has no ratio or two, or one that
            ``most`` forbids.
    """
    ratios = ratios_by_parameter({name: name for name in sizes}, given)
    counts = {name: round(ratios[name] * sizes[name]) for name in sizes}
    over = next((name for name in sizes if counts[name] > most[name]), None)
    if over is not None:
        raise InvalidArgumentError(
            Argument("keep_at_least"), f" forbids the ratio of {over}: lower one of them"
        )
    return counts
