"""Allocation: how an overall ratio becomes a count for each layer, exact in total."""

import math
import warnings
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import nn

from secateurs._tensors.float_keys import Scores
from secateurs._validation import check_choice, check_ratio, nearest
from secateurs.errors import Argument, InvalidArgumentError, RepairWarning
from secateurs.parameters.model_contents import ModelContents
from secateurs.selection._select import read_options, scored
from secateurs.selection.candidates import Candidates
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.selection.threshold import candidate_masks
from secateurs.selection.tie_breaking import Marks

ALLOCATIONS = ("global", "uniform", "erk")


@shows(SelectionOptions)
def allocate(
    model: nn.Module,
    p_prune: float | None = None,
    allocation: str | Mapping[str, float] = "global",
    *,
    keep_at_least: float = 0.0,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Candidates:
    """Choose candidates, so many in each layer; in all exactly ``round(p_prune * n)`` units.

    Args:
        model: the network; it is not changed.
        p_prune: the ratio of units in all; None where ``allocation`` gives that of each layer.
        allocation: ``"global"`` (all units are ranked together; with ``score="lamp"`` that is the
            allocation of Lee et al. 2021), ``"uniform"`` (the same ratio in each layer), ``"erk"``
            (a layer keeps a share in proportion to the sum of its dimensions over their product;
            Evci et al. 2020, section 3), or the ratio of each parameter by its name.
        keep_at_least: the share of each layer's units that is kept in any case.
        generator: for random scores, instead of a seed; its state advances.
        **options: the fields of `secateurs.SelectionOptions`; ``scope`` is the allocation's.

    Returns:
        The candidates; ``secateurs.apply_masks(model, candidates.draw())`` prunes.

    Warns:
        RepairWarning: a layer loses everything.

    Raises:
        InvalidArgumentError: an unknown allocation or name, a ratio outside [0, 1], or more is to
            be pruned than ``keep_at_least`` leaves.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> chosen = allocate(model, 0.5, "uniform", keep_at_least=0.1).chosen
        >>> {name: int(mask.sum()) for name, mask in chosen.items()}
        {'0.weight': 32, '1.weight': 8}
    """
    contents = ModelContents(model)
    given = read_options(allocate, contents, options)
    floor = check_ratio("keep_at_least", keep_at_least)
    if contents.group.is_distributed:
        raise InvalidArgumentError(
            "allocate does not know models that are divided over ranks: use select"
        )
    found = scored(contents, given, generator, None)
    units, scores = found.units, found.scores
    sizes = {one.name: one.values.numel() for one in scores}
    most = {name: size - math.ceil(floor * size) for name, size in sizes.items()}
    if not isinstance(allocation, Mapping):
        if p_prune is None:
            raise InvalidArgumentError(
                Argument("p_prune"), " is not given: write how much to prune in all, ",
                Argument("p_prune", 0.5),
            )  # fmt: skip
        check_choice("allocation", allocation, ALLOCATIONS)
        total = round(check_ratio("p_prune", p_prune) * sum(sizes.values()))
        _check_room(total, most)
        if allocation == "global":
            counts = _global_counts(scores, total, most)
        else:
            erk = {n: sum(u.shape) / max(1, math.prod(u.shape)) for n, u in units.items()}
            kept = erk if allocation == "erk" else dict.fromkeys(sizes, 1.0)
            counts = _counts_by_shares(sizes, total, most, kept)
    else:
        counts = _counts_by_ratios(sizes, p_prune, most, allocation)
    _warn_of_empty(sizes, counts)
    masks = Marks.empty([one.values for one in scores]).masks
    for one, mask in zip(scores, masks, strict=True):
        candidate_masks([one], counts[one.name], Marks([mask]))
    named = {one.name: mask for one, mask in zip(scores, masks, strict=True)}
    return Candidates(units, named, contents.group)


def _check_room(total: int, most: Mapping[str, int]) -> None:
    if total > sum(most.values()):
        raise InvalidArgumentError(
            Argument("keep_at_least"),
            f" leaves {sum(most.values())} units to prune, which is less than {total}: lower it, "
            "or prune less",
        )


def _global_counts(scores: list[Scores], total: int, most: Mapping[str, int]) -> dict[str, int]:
    """How many of each layer are among the smallest; what a floor keeps, others lose instead."""
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


def _counts_by_shares(
    sizes: Mapping[str, int], total: int, most: Mapping[str, int], shares: Mapping[str, float]
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


def _counts_by_ratios(
    sizes: Mapping[str, int],
    p_prune: float | None,
    most: Mapping[str, int],
    ratios: Mapping[str, float],
) -> dict[str, int]:
    for name in ratios:
        if name not in sizes:
            raise InvalidArgumentError(
                f"allocation names {name}, which does not compete{nearest(name, sizes)}"
            )
    missing = next((name for name in sizes if name not in ratios), None)
    if missing is not None:
        raise InvalidArgumentError(
            f"allocation gives no ratio for {missing}: add it, or exclude the parameter"
        )
    counts = {name: round(check_ratio(name, ratios[name]) * sizes[name]) for name in sizes}
    if p_prune is not None:
        raise InvalidArgumentError(
            "allocation gives the ratio of each parameter, and p_prune another in all: leave out ",
            Argument("p_prune"),
        )
    over = next((name for name in sizes if counts[name] > most[name]), None)
    if over is not None:
        raise InvalidArgumentError(
            Argument("keep_at_least"), f" forbids the ratio of {over}: lower one of them"
        )
    return counts


def _warn_of_empty(sizes: Mapping[str, int], counts: Mapping[str, int]) -> None:
    empty = [name for name, size in sizes.items() if size and counts[name] == size]
    if empty and len(empty) < len(sizes):
        warnings.warn(
            RepairWarning(
                f"{', '.join(empty[:3])}{f' and {len(empty) - 3} more' if len(empty) > 3 else ''} "
                "loses everything: nothing passes such a layer; write ",
                Argument("keep_at_least", 0.02),
            ),
            stacklevel=3,
        )
