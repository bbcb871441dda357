"""Scores changed by masks."""

from collections.abc import Callable

import torch

from secateurs.masks.apply import local_mask
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.target import Target

Change = Callable[[Target, torch.Tensor], torch.Tensor]
"""Takes a target and the scores of its elements or units, and returns other scores."""

_Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def filled(masks: Masks, value: float, *, where_kept: bool) -> Change:
    """Give all kept elements (or all pruned ones) the same score."""

    def fill(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(keep if where_kept else ~keep, value)

    return lambda target, scores: _changed(masks.units[target.name], target, scores, fill)


def favoured(masks: Masks, margin: float) -> Change:
    """Multiply the scores of kept elements by 1 + ``margin``."""

    def favour(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return torch.where(keep, scores * (1 + margin), scores)

    return lambda target, scores: _changed(masks.units[target.name], target, scores, favour)


def combined(first: Mask, second: Mask, *, both: bool) -> Mask:
    """What both masks keep, or what either keeps."""
    keep = first.keep & second.keep if both else first.keep | second.keep
    return Mask(keep, first.units)


def _changed(mask: Mask, target: Target, scores: torch.Tensor, rule: _Rule) -> torch.Tensor:
    """Change the scores on this rank; the result is a DTensor where the parameter is one."""
    units = mask.units
    if units.pooled and tuple(scores.shape) == units.unit:
        shard, keep = units.shard, mask.keep
    else:
        shard, keep = target.shard, local_mask(mask, target)
    here = shard.of(scores)
    return shard.as_dtensor(rule(here, keep.to(here.device).expand(here.shape)))
