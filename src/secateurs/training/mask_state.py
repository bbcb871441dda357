"""Masks as they are found in a model, and tensors of saved states brought beside those of today."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateurs._tensors.memory_order import as_integers
from secateurs.distributed.dtensor import is_part, local_of, part_like, settle, whole_of
from secateurs.distributed.shard import shard_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks._sparsity import count_nonzero
from secateurs.masks.apply import local_mask, matching_targets
from secateurs.masks.mask import Mask, Masks
from secateurs.originals.module_state import original_of
from secateurs.training.score_changes import combined
from secateurs.training.zeroing import Masked, Zeroing, same_shape_mask


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


def check_state(state: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Check that a saved state of a `Pruner` is one of a `Pruner` such as the one that has another.

    Raises:
        InvalidArgumentError: it is of another schedule or another model.
    """
    for name in ("schedule", "regrow"):
        if state.get(name) != mine[name]:
            raise InvalidArgumentError(
                f"the state was saved under {name} {state.get(name)}, and this Pruner has "
                f"{mine[name]}: make it with the same to go on"
            )
    shapes = [
        {name: tuple(keep.shape) for name, keep in one.get("masks", {}).items()}
        for one in (state, mine)
    ]
    if shapes[0] != shapes[1] or not mine.keys() <= state.keys():
        raise InvalidArgumentError(
            "the state is of another model, or of other layers or granularity: it has masks of "
            f"{len(shapes[0])} parameters that are not those of the {len(shapes[1])} here"
        )


@torch.no_grad()
def zero_what_grew(model: nn.Module, before: Masks, masks: Masks) -> None:
    """Set to zero what these masks keep and those before did not.

    Grown weights begin at zero, also where original values lie untrained behind the mask.
    """
    rows: list[Masked] = []
    for target, mask in matching_targets(model, masks):
        pruned = Mask(mask.keep.logical_not(), mask.units)
        stays = combined(before.units[target.name], pruned, both=False)
        here = local_of(target.parameter.detach())
        rows.append(Masked(same_shape_mask(local_mask(stays, target), here), [here]))
    Zeroing()(rows)


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


@torch.no_grad()
def copied_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all tensors of a model's state dict."""
    settle(model)
    state = model.state_dict().items()
    return {name: v.detach().clone() for name, v in state if isinstance(v, torch.Tensor)}


@torch.no_grad()
def write_values(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Write copied values back, into the same Parameters and buffers."""
    settle(model)
    now = model.state_dict()
    for name, value in values.items():
        now[name].copy_(value)
