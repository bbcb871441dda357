"""Masks into weights, in place and restorable.

While a parameter NAME is pruned, a non-persistent buffer NAME_orig beside it holds its original
values: it follows ``.to()`` and ``.half()``, is copied by ``deepcopy`` and pickled, and stays out
of the ``state_dict``. The Parameter stays the same object, so optimizers, DDP, tied weights and
compiled graphs do not notice.
"""

import numpy as np
import torch
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.masks import Mask, Masks
from secateurs.multiply import Product, as_integers, multiply
from secateurs.overlaps import refuse_overlaps
from secateurs.sharding.presence import is_part, local_of, replicated
from secateurs.sharding.shard import shard_of
from secateurs.sparsity import BACKWARD_SUFFIX
from secateurs.targets import ORIGINAL_SUFFIX, Target, all_parameters, pruned_places


def matching_targets(model: nn.Module, masks: Masks) -> list[tuple[Target, Mask]]:
    """Pair each mask with the parameter it is for.

    Raises:
        InvalidArgumentError: the model has no parameter of that name and shape.
    """
    parameters = all_parameters(model)
    pairs: list[tuple[Target, Mask]] = []
    for name, mask in masks.units.items():
        if name not in parameters:
            raise InvalidArgumentError(
                f"the masks are for another model: it has no parameter {name!r}"
            )
        target = parameters[name]
        if tuple(target.parameter.shape) != mask.units.shape:
            raise InvalidArgumentError(
                f"the masks are for another model: {name} has shape "
                f"{tuple(target.parameter.shape)}, its mask {mask.units.shape}"
            )
        pairs.append((target, mask))
    return pairs


def local_mask(mask: Mask, target: Target) -> torch.Tensor:
    """The part of a mask that broadcasts to the part of the parameter that lies here.

    Args:
        mask: whole, or divided over the ranks as the parameter is.
        target: the parameter it is for.

    Raises:
        InvalidArgumentError: the mask is divided in another way than the parameter.
    """
    keep, parameter = mask.broadcastable, target.parameter
    if not is_part(keep):
        return shard_of(parameter, target.name).of(keep) if is_part(parameter) else keep
    shown = shard_of(parameter, target.name)
    part = local_of(keep)
    if tuple(part.shape) == tuple(keep.shape):  # this rank has all of it
        return shown.of(part)
    lying = shard_of(keep, target.name)
    if all(
        np.array_equal(rows, others)
        for rows, others, size in zip(lying.rows, shown.rows, keep.shape, strict=True)
        if size > 1
    ):
        return part
    raise InvalidArgumentError(
        f"the mask of {target.name} is divided over the ranks in another way than the parameter: "
        "save the masks, and load them for this model"
    )


def mask_beside(mask: Mask, target: Target) -> torch.Tensor:
    """A mask that broadcasts to the parameter: a DTensor if the parameter is one.

    Raises:
        InvalidArgumentError: as `local_mask`.
    """
    local_mask(mask, target)
    keep = mask.broadcastable
    return replicated(keep, target.parameter) if not is_part(keep) else keep


def check_weights(model: nn.Module, masks: Masks) -> list[tuple[Target, Mask]]:
    """Pair each mask with its parameter, and check that it can be written into the weights.

    Raises:
        InvalidArgumentError: the masks do not fit, or a weight cannot be written in place.
    """
    pairs = matching_targets(model, masks)
    for target, mask in pairs:
        _check_writable(target)
        local_mask(mask, target)
    refuse_overlaps([(target.name, target.parameter) for target, _ in pairs])
    return pairs


def prune_weights(model: nn.Module, pairs: list[tuple[Target, Mask]]) -> None:
    """Set every masked-out weight to zero, starting from the original values.

    What was pruned before and is not masked now is restored.

    Args:
        model: the network, without masks on the backward pass.
        pairs: what `check_weights` made of the masks.
    """
    restore_weights(model, keep={id(target.parameter) for target, _ in pairs})
    for target, _ in pairs:  # all before the first write: two parameters may lie over one memory
        _save(target)
    _write(pairs)


def restore_weights(model: nn.Module, keep: set[int] | None = None) -> None:
    """Put the original values back, bit for bit, except in parameters whose id is in ``keep``."""
    for module, attribute in pruned_places(model, ORIGINAL_SUFFIX):
        parameter = module._parameters[attribute]
        if parameter is None or id(parameter) in (keep or ()):
            continue
        # Copied before they are let go: Ctrl-C in between must not lose the originals.
        _copy_bits(parameter, module.get_buffer(attribute + ORIGINAL_SUFFIX))
        _forget(module, attribute)


def pruned_weights(model: nn.Module) -> list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]]:
    """What is pruned now: (module, attribute, original values, a copy of the pruned values)."""
    return [
        (
            module,
            a,
            module.get_buffer(a + ORIGINAL_SUFFIX),
            module.get_parameter(a).detach().clone(),
        )
        for module, a in pruned_places(model, ORIGINAL_SUFFIX)
    ]


def reinstate_weights(
    weights: list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]],
) -> None:
    """Bring back what `pruned_weights` noted, on a model that is not pruned."""
    for module, attribute, original, values in weights:
        parameter = module.get_parameter(attribute)
        module.register_buffer(
            attribute + ORIGINAL_SUFFIX,
            original.to(parameter.device, parameter.dtype),
            persistent=False,
        )
        _copy_bits(parameter, values)


def forget_originals(model: nn.Module) -> None:
    """Drop the kept originals, so that the pruned weights are the weights."""
    for module, attribute in pruned_places(model, ORIGINAL_SUFFIX):
        _forget(module, attribute)


def _forget(module: nn.Module, attribute: str) -> None:
    del module._buffers[attribute + ORIGINAL_SUFFIX]
    module._non_persistent_buffers_set.discard(attribute + ORIGINAL_SUFFIX)


def _save(target: Target) -> None:
    original = target.saved
    if original is None:
        original = target.parameter.detach().clone()
    for module, attribute in target.places:
        if module._buffers.get(attribute + ORIGINAL_SUFFIX) is None:
            module.register_buffer(attribute + ORIGINAL_SUFFIX, original, persistent=False)


def _check_writable(target: Target) -> None:
    if _overlaps(local_of(target.parameter.detach())):
        raise InvalidArgumentError(
            f"elements of {target.name} share memory (as after expand or unfold), so they cannot "
            "be pruned one by one: replace it by nn.Parameter(weight.detach().clone())"
        )
    for module, attribute in target.places:
        name = attribute + ORIGINAL_SUFFIX
        # Pruned before, in the weights or in the backward pass: then the name is ours.
        ours = {name, attribute + BACKWARD_SUFFIX} & module._non_persistent_buffers_set
        if not ours and hasattr(module, name):
            raise InvalidArgumentError(
                f"{target.name} cannot be pruned: its module already has an attribute {name}"
            )


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may lie at one address: each dimension must step over the inner ones."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


@torch.no_grad()
def _write(pairs: list[tuple[Target, Mask]]) -> None:
    multiply(
        [
            Product(
                local_of(target.weight),
                local_mask(mask, target),
                local_of(target.parameter.detach()),
            )
            for target, mask in pairs
        ]
    )
    for target, _ in pairs:
        parameter = target.parameter
        if parameter.device.type == "cpu" and not parameter.is_inference():
            # A pending backward pass that needs the old values must find out that they are gone.
            torch.autograd.graph.increment_version(parameter)


@torch.no_grad()
def _copy_bits(parameter: nn.Parameter, original: torch.Tensor) -> None:
    values, original = local_of(parameter.detach()), local_of(original.detach())
    if original.dtype == parameter.dtype:
        values, original = as_integers(values), as_integers(original)
    values.copy_(original)
