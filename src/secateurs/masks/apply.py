"""Pruning of weights by masks: in place, and so that the original values can be restored.

While a parameter NAME is pruned, the attribute NAME_orig of its module holds its original values.
It follows ``.to()`` and ``.half()``, ``deepcopy`` and ``pickle`` copy it, and it is neither in the
``state_dict`` nor among the buffers. The Parameter stays the same object, so optimizers, DDP, tied
weights and compiled graphs do not notice.

Pruning again starts from the original values, as long as the Parameter equals them times the mask.
If it was trained since, pruning starts from its current values.
"""

from collections.abc import Collection

import torch

from secateurs._tensors.memory_order import as_integers
from secateurs._tensors.multiply import Product, multiply
from secateurs.distributed.dtensor import as_replica, local_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Mask, Masks, check_masks
from secateurs.originals.module_state import (
    ORIGINAL_SUFFIX,
    forget_original,
    keep_original,
    keeps_original,
    original_of,
)
from secateurs.originals.original import Original, valid_of
from secateurs.originals.restore_weights import (
    check_releasable,
    copy_bits,
    find_released,
    release_weights,
)
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.refusals import why_not
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
    """The part of a mask that broadcasts to this rank's elements of the parameter.

    Args:
        mask: whole, or divided over the ranks as the parameter is.
        target: the parameter that the mask is for.

    Raises:
        InvalidArgumentError: the mask is divided in another way than the parameter.
    """
    units = mask.units
    if units.placement is None or units.placement.is_whole:
        keep = units.broadcastable(mask.keep)
        return keep if target.placement is None else target.placement.of(keep)
    if units.placement.is_aligned(target.shard):
        return mask.keep
    raise InvalidArgumentError(
        f"the mask of {target.name} is divided over the ranks in another way than the parameter: "
        "save the masks, and load them for this model"
    )


def mask_beside(mask: Mask, target: Target) -> torch.Tensor:
    """The mask in a shape that broadcasts to the parameter; a DTensor if the parameter is one.

    Raises:
        InvalidArgumentError: as `local_mask`.
    """
    local_mask(mask, target)
    return as_replica(mask.broadcastable, target.parameter)


def check_weights(contents: ModelContents, masks: Masks) -> list[tuple[Target, Mask]]:
    """Pair each mask with its parameter, and check that it can be written into the weights.

    Raises:
        InvalidArgumentError: the masks do not fit; a parameter cannot be pruned (of integers, for
            example, or sparse) or cannot be written in place; or a weight that was pruned before is
            computed now.
    """
    pairs = matching_targets(contents, masks)
    for target, mask in pairs:
        _check_writable(target)
        local_mask(mask, target)
    refuse_overlaps([target for target, _ in pairs])
    check_releasable(contents.modules)
    return pairs


@torch.no_grad()
def prune_weights(
    contents: ModelContents, pairs: list[tuple[Target, Mask]], stay: Collection[int] = ()
) -> None:
    """Set every masked-out weight to zero, starting from the original values.

    The current values of a weight that was trained since it was pruned become its original values.
    Weights that were pruned before and have no mask now are no longer pruned.

    Args:
        contents: of the network, without masks on the backward pass.
        pairs: what `check_weights` made of the masks.
        stay: ids of Parameters without a mask that stay pruned if they are.
    """
    again = {id(target.parameter) for target, _ in pairs}
    released = find_released(contents.modules, contents.group, keep=again.union(stay))
    _write(pairs)
    release_weights(released)  # last: if writing is interrupted, these stay pruned as well


def _save(target: Target) -> list[Original]:
    """Save the values that pruning starts from, in every module that has the parameter."""
    earlier = [original_of(*place) for place in target.places]
    valid = valid_of([one for one in earlier if one is not None])
    values = _values_to_prune(target, valid)
    if values.is_inference() and not target.parameter.is_inference():
        with torch.inference_mode(False):
            values = values.clone()  # autograd refuses to save a tensor of inference mode
    originals: list[Original] = []
    for (module, attribute), kept in zip(target.places, earlier, strict=True):
        if kept is None or kept.values is not values:
            kept = Original(values, target.parameter)
            keep_original(module, attribute, kept)
        originals.append(kept)
    return originals


def _values_to_prune(target: Target, original: Original | None) -> torch.Tensor:
    """The original values, or the current ones if `find_released` found them trained."""
    parameter = target.parameter
    if original is None or original.was_trained or _shares_memory(target, original):
        return parameter.detach().clone()
    known = original.was_unwritten or parameter.is_cpu or target.placement is not None
    if known or (parameter.is_cuda and torch.cuda.is_current_stream_capturing()):
        return original.beside
    # On a GPU a new gradient may be the only sign of training; the device decides, without waiting.
    now, then = as_integers(parameter), as_integers(original.beside)
    return torch.where(original.differs(), now, then).view(parameter.dtype)


def _shares_memory(target: Target, original: Original) -> bool:
    """Whether the parameter was set to the memory of the original itself."""
    address = target.local.data_ptr()
    return address != 0 and local_of(original.values).data_ptr() == address


def _check_writable(target: Target) -> None:
    reason = why_not(target)
    if reason is not None:
        what, remedy = reason
        leave_out = remedy.replace("write {exclude}", "leave it out of the masks")
        raise InvalidArgumentError(f"{target.name} {what}: {leave_out}")
    if _overlaps(target.local):
        raise InvalidArgumentError(
            f"elements of {target.name} share memory (as after expand or unfold), so they cannot "
            "be pruned one by one: replace it by nn.Parameter(weight.detach().clone())"
        )
    for module, attribute in target.places:
        name = attribute + ORIGINAL_SUFFIX
        # Under gradient pruning, the module's class has a property of this name.
        properties: tuple[str, ...] = getattr(type(module), "secateurs_own", ())
        ours = attribute in properties or keeps_original(module, attribute)
        if not ours and hasattr(module, name):
            raise InvalidArgumentError(
                f"{target.name} cannot be pruned: its module already has an attribute {name}"
            )


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may share an address: a stride is within the span of smaller ones."""
    if tensor.is_contiguous():
        return False
    span = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= span:
            return True
        span += stride * (size - 1)
    return False


def _write(pairs: list[tuple[Target, Mask]]) -> None:
    rows: list[tuple[Target, torch.Tensor, list[Original]]] = []
    before: list[tuple[Target, list[Original], torch.Tensor | None, torch.Tensor | None]] = []
    try:
        # All originals are saved before the first write: two parameters may share memory.
        for target, mask in pairs:
            originals = _save(target)
            before.append((target, originals, originals[0].repaired, originals[0].mask))
            rows.append((target, local_mask(mask, target), originals))
        multiply([Product(local_of(o[0].values), keep, target.local) for target, keep, o in rows])
        for target, keep, originals in rows:
            _note_written(target.parameter, originals, keep)
    except BaseException:  # as Ctrl-C: what is half written would be taken for trained
        for row in before:
            _write_back(*row)
        raise
    finally:
        torch.clear_autocast_cache()  # inside autocast, layers would go on with the old values


def _write_back(
    target: Target,
    originals: list[Original],
    repaired: torch.Tensor | None,
    keep: torch.Tensor | None,
) -> None:
    """Write what the weight held before: its original values pruned by a mask, or repaired."""
    copy_bits(target.parameter, originals[0].values if repaired is None else repaired)
    if repaired is None and keep is not None:
        with torch.inference_mode(target.parameter.is_inference()):  # as in `copy_bits`
            bits = as_integers(target.local)
            bits.masked_fill_(keep.to(bits.device).logical_not(), 0)
    _note_written(target.parameter, originals, keep)
    for original in originals if repaired is not None else ():
        original.note_repaired()
    if repaired is None and keep is None:  # `restore` would take back what is trained from now on
        for place in target.places:
            forget_original(*place)


def _note_written(
    parameter: torch.Tensor, originals: list[Original], keep: torch.Tensor | None
) -> None:
    uncounted = parameter.device.type == "cpu" or torch.is_inference_mode_enabled()
    if uncounted and not parameter.is_inference():
        # So that a pending backward pass that needs the old values raises an error.
        torch.autograd.graph.increment_version(parameter)
    for original in originals:
        original.note_pruned(keep)
