"""Allocation: how an overall ratio becomes a count for each layer, exact in total."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from secateurs._io.text import listed
from secateurs._validation import check_choice, check_ratio
from secateurs.errors import Argument, InvalidArgumentError, RepairWarning
from secateurs.parameters.model_contents import ModelContents
from secateurs.repair.ratio_files import SUFFIXES, read_ratios
from secateurs.selection._select import read_options, scored
from secateurs.selection.candidates import Candidates
from secateurs.selection.layer_counts import (
    check_room,
    counts_by_ratios,
    counts_by_shares,
    erk_shares,
    global_counts,
    least_kept,
)
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.selection.threshold import candidate_masks
from secateurs.selection.tie_breaking import Marks

ALLOCATIONS = ("global", "uniform", "erk")


@shows(SelectionOptions)
def allocate(
    model: nn.Module,
    p_prune: float | None = None,
    allocation: str | Path | Mapping[str, float] = "global",
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
            Evci et al. 2020, section 3), or the ratio of each layer or parameter by its name, or a
            file of them, see `read_ratios`.
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
    kept = check_ratio("keep_at_least", keep_at_least)
    contents.refuse_ranks("allocate", "use select", copies=True)
    if given.neighbours is not None:
        raise InvalidArgumentError(
            Argument("scope", given.scope),
            " allocates the same ratio to each layer: call secateurs.select, or leave it out",
        )
    found = scored(contents, given, generator, None)
    units, scores = found.units, found.scores
    sizes = {one.name: one.values.numel() for one in scores}
    most = {name: size - least_kept(kept, size) for name, size in sizes.items()}
    if isinstance(allocation, str | Path) and str(allocation).lower().endswith(SUFFIXES):
        allocation = read_ratios(allocation)
    if isinstance(allocation, Mapping):
        if p_prune is not None:
            raise InvalidArgumentError(
                "allocation gives the ratio of each parameter, and p_prune another in all: leave "
                "out ",
                Argument("p_prune"),
            )
        counts = counts_by_ratios(sizes, most, allocation)
    else:
        check_choice("allocation", allocation, ALLOCATIONS)
        total = round(given.ratio(p_prune) * sum(sizes.values()))
        check_room(total, most)
        if allocation == "global":
            counts = global_counts(scores, total, most)
        else:
            erk = erk_shares({name: one.shape for name, one in units.items()})
            shares = erk if allocation == "erk" else dict.fromkeys(sizes, 1.0)
            counts = counts_by_shares(sizes, total, most, shares)
    _warn_of_empty(sizes, counts)
    masks = Marks.empty([one.values for one in scores]).masks
    for one, mask in zip(scores, masks, strict=True):
        candidate_masks([one], counts[one.name], Marks([mask]))
    named = {one.name: mask for one, mask in zip(scores, masks, strict=True)}
    return Candidates(units, named, contents.group)


def _warn_of_empty(sizes: Mapping[str, int], counts: Mapping[str, int]) -> None:
    empty = [name for name, size in sizes.items() if size and counts[name] == size]
    if empty and len(empty) < len(sizes):
        warnings.warn(
            RepairWarning(
                f"{listed(empty)} loses everything: nothing passes such a layer; write ",
                Argument("keep_at_least", 0.02),
            ),
            stacklevel=3,
        )
