"""Scores changed by the masks that are in force."""

from collections.abc import Callable

import torch

from secateurs.distributed.dtensor import is_part, local_of, part_like, whole_of
from secateurs.masks.apply import local_mask
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.target import Target

Change = Callable[[Target, torch.Tensor], torch.Tensor]
"""Takes a target and the scores of its elements or units, and returns other scores."""

_Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def filled(masks: Masks, value: float, *, where_kept: bool) -> Change:
    """Give what is kept (or what is pruned) one score."""

    def fill(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(keep if where_kept else ~keep, value)

    return lambda target, scores: _changed(masks.units[target.name], target, scores, fill)


def favoured(masks: Masks, margin: float) -> Change:
    """Multiply the scores of what is kept by 1 + ``margin``."""

    def favour(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return torch.where(keep, scores * (1 + margin), scores)

    return lambda target, scores: _changed(masks.units[target.name], target, scores, favour)


def combined(first: Mask, second: Mask, *, both: bool) -> Mask:
    """What both masks keep, or what either keeps."""
    here, there = local_of(first.keep), local_of(second.keep)
    return Mask(part_like(here & there if both else here | there, first.keep), first.units)


def _changed(mask: Mask, target: Target, scores: torch.Tensor, rule: _Rule) -> torch.Tensor:
    of_units = bool(mask.units.pooled) and tuple(scores.shape) == mask.units.unit
    if is_part(scores) and not of_units:
        parameter = target.parameter
        if tuple(scores.placements) == tuple(parameter.placements):  # pyright: ignore[reportAttributeAccessIssue]
            here = local_of(scores)
            keep = local_mask(mask, target).expand(here.shape)
            return part_like(rule(here, keep), scores)
    keep, scores = whole_of(mask.keep), whole_of(scores)
    keep = keep if of_units else mask.units.expand(keep)
    return rule(scores, keep.to(scores.device))
