"""Masks into weights, in place and restorable.

While a parameter NAME is pruned, an attribute NAME_orig beside it holds its original values: it
follows ``.to()`` and ``.half()``, is copied by ``deepcopy`` and pickled, and is neither in the
``state_dict`` nor among the buffers. The Parameter stays the same object, so optimizers, DDP, tied
weights and compiled graphs do not notice.

Originals belong to one Parameter, and count as long as it holds nothing but original values and
zeros where the mask says so. What was trained since is where the next pruning starts.
"""

import torch
from torch import nn

from secateurs._tensors.memory_order import as_integers
from secateurs._tensors.multiply import Product, multiply
from secateurs.distributed.dtensor import as_replica, local_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Mask, Masks, check_masks
from secateurs.originals.module_state import (
    ORIGINAL_SUFFIX,
    keep_original,
    keeps_original,
    original_of,
)
from secateurs.originals.original import Original, valid_of
from secateurs.originals.restore_weights import check_releasable, release_weights
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.shared_memory import refuse_overlaps
from secateurs.parameters.target import Target


def matching_targets(contents: ModelContents, masks: Masks) -> list[tuple[Target, Mask]]:
    """Pair each mask with the parameter it is for.

    Raises:
        InvalidArgumentError: the model has no parameter of that name and shape; ``masks`` are
            something else.
    """
    check_masks("masks", masks)
    pairs: list[tuple[Target, Mask]] = []
    for name, mask in masks.units.items():
        target = contents.targets.get(name)
        if target is None:
            raise InvalidArgumentError(
                f"the masks are for another model: it has no parameter {name!r}"
            )
        if tuple(target.parameter.shape) != mask.units.shape:
            raise InvalidArgumentError(
                f"the masks are for another model: {name} has shape "
                f"{tuple(target.parameter.shape)}, its mask {mask.units.shape}"
            )
        pairs.append((target, mask))
    return pairs


def local_mask(mask: Mask, target: Target) -> torch.Tensor:
    """What of a mask broadcasts to the part of the parameter that lies here.

    Args:
        mask: whole, or divided over the ranks as the parameter is.
        target: the parameter it is for.

    Raises:
        InvalidArgumentError: the mask is divided in another way than the parameter.
    """
    units = mask.units
    if units.placement is None or units.placement.is_whole:
        keep = units.broadcastable(mask.keep)
        return target.shard.of(keep) if target.group.is_sharded else keep
    if units.placement.lies_along(target.shard):
        return mask.keep
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
    return as_replica(mask.broadcastable, target.parameter)


def check_weights(contents: ModelContents, masks: Masks) -> list[tuple[Target, Mask]]:
    """Pair each mask with its parameter, and check that it can be written into the weights.

    Raises:
        InvalidArgumentError: the masks do not fit, or a weight cannot be written in place, or one
            that was pruned before is computed now.
    """
    pairs = matching_targets(contents, masks)
    for target, mask in pairs:
        _check_writable(target)
        local_mask(mask, target)
    refuse_overlaps([target for target, _ in pairs])
    check_releasable(contents.modules)
    return pairs


@torch.no_grad()
def prune_weights(contents: ModelContents, pairs: list[tuple[Target, Mask]]) -> None:
    """Set every masked-out weight to zero, starting from the original values.

    Where a weight was trained since it was pruned, its values now are the original ones from here
    on. What was pruned before and is not masked now is released.

    Args:
        contents: of the network, without masks on the backward pass.
        pairs: what `check_weights` made of the masks.
    """
    again = {id(target.parameter) for target, _ in pairs}
    release_weights(contents.modules, contents.group, keep=again)
    # All before the first write: two parameters may lie over one memory.
    _write([(target, mask, _save(target)) for target, mask in pairs])


def _save(target: Target) -> list[Original]:
    """See to it that each place keeps the values that pruning starts from."""
    standing = [original_of(*place) for place in target.places]
    values = _start(target, valid_of([one for one in standing if one is not None]))
    originals: list[Original] = []
    for (module, attribute), kept in zip(target.places, standing, strict=True):
        if kept is None or kept.values is not values:
            kept = Original(values, target.parameter)
            keep_original(module, attribute, kept)
        originals.append(kept)
    return originals


def _start(target: Target, original: Original | None) -> torch.Tensor:
    """The values that pruning starts from; `release_weights` has seen whether it was trained."""
    parameter = target.parameter
    if original is None or original.was_trained or _shares_memory(target, original):
        return parameter.detach().clone()
    known = original.was_settled or parameter.is_cpu or target.group.is_sharded
    if known or _recording(parameter):
        return original.beside
    # On a GPU, where some optimizers leave no trace but the gradient: decided over there.
    now, then = as_integers(parameter), as_integers(original.beside)
    return torch.where(original.differs(), now, then).view(parameter.dtype)


def _shares_memory(target: Target, original: Original) -> bool:
    """Whether someone has put the original's own memory in the parameter's place."""
    address = target.local.data_ptr()
    return address != 0 and local_of(original.values).data_ptr() == address


def _recording(parameter: nn.Parameter) -> bool:
    return parameter.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _check_writable(target: Target) -> None:
    if _overlaps(target.local):
        raise InvalidArgumentError(
            f"elements of {target.name} share memory (as after expand or unfold), so they cannot "
            "be pruned one by one: replace it by nn.Parameter(weight.detach().clone())"
        )
    for module, attribute in target.places:
        name = attribute + ORIGINAL_SUFFIX
        # Pruned in the backward pass, its class shows one of ours.
        shown: tuple[str, ...] = getattr(type(module), "secateurs_own", ())
        ours = attribute in shown or keeps_original(module, attribute)
        if not ours and hasattr(module, name):
            raise InvalidArgumentError(
                f"{target.name} cannot be pruned: its module already has an attribute {name}"
            )


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may lie at one address: each dimension must step over the inner ones."""
    if tensor.is_contiguous():
        return False
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _write(rows: list[tuple[Target, Mask, list[Original]]]) -> None:
    kept = [local_mask(mask, target) for target, mask, _ in rows]
    multiply(
        [
            Product(local_of(originals[0].values), keep, target.local)
            for (target, _, originals), keep in zip(rows, kept, strict=True)
        ]
    )
    for (target, _, originals), keep in zip(rows, kept, strict=True):
        parameter = target.parameter
        if parameter.device.type == "cpu" and not parameter.is_inference():
            # A pending backward pass that needs the old values must find out that they are gone.
            torch.autograd.graph.increment_version(parameter)
        for original in originals:
            original.written(keep)
