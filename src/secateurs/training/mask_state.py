"""Masks as they are found in a model, and tensors of saved states brought beside those of today."""

import torch
from torch import nn

from secateurs._tensors.memory_order import as_integers
from secateurs.distributed.dtensor import is_part, local_of, part_like, whole_of
from secateurs.distributed.shard import shard_of
from secateurs.masks._sparsity import count_nonzero
from secateurs.masks.apply import matching_targets
from secateurs.masks.mask import Mask, Masks
from secateurs.originals.module_state import original_of


def pruned_now(model: nn.Module, every: Masks) -> Masks:
    """The masks that a model is under: a unit is pruned if all of its elements are zero.

    Args:
        model: the network.
        every: masks that keep everything.
    """
    found: dict[str, Mask] = {}
    for target, mask in matching_targets(model, every):
        found[target.name] = mask
        if any(original_of(*place) is not None for place in target.places):
            kept = whole_of(part_like(nonzero(target.parameter), target.parameter))
            keep = mask.units.pool(kept.float()) > 0
            found[target.name] = Mask(beside(keep, mask.keep), mask.units)
    return Masks(found)


def nonzero(parameter: nn.Parameter) -> torch.Tensor:
    """Where the local part of a parameter is not zero, for any dtype."""
    bits = as_integers(local_of(parameter.detach()))
    return bits + bits != 0  # twice the bits of -0 are zero too


def pruned_units(masks: Masks) -> int:
    """How many units are pruned; all ranks of a sharded model must ask together."""
    kept = sum(count_nonzero([mask.keep for mask in masks.units.values()]))
    return sum(mask.units.count for mask in masks.units.values()) - kept


def beside(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor on the device of another one, and divided over the ranks as that is."""
    if is_part(value):
        return value if is_part(like) else whole_of(value).to(like.device)
    value = value.to(like.device)
    return part_like(shard_of(like).of(value).contiguous(), like) if is_part(like) else value
