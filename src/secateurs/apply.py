"""Masks into weights, in place and restorable.

While a parameter NAME is pruned, an attribute NAME_orig beside it holds its original values: it
follows ``.to()`` and ``.half()``, is copied by ``deepcopy`` and pickled, and is neither in the
``state_dict`` nor among the buffers. The Parameter stays the same object, so optimizers, DDP, tied
weights and compiled graphs do not notice.

Originals belong to one Parameter, and count as long as it holds nothing but original values and
zeros. What was trained since is where the next pruning starts; only `restore_weights` goes back
behind it.
"""

import numpy as np
import torch
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.kept import (
    ORIGINAL_SUFFIX,
    forget_original,
    keep_original,
    keeps_original,
    original_of,
    originals_of,
)
from secateurs.layout import as_integers
from secateurs.masks import Mask, Masks
from secateurs.multiply import Product, multiply
from secateurs.original import Original, differs, look
from secateurs.sharding.presence import is_part, local_of, replicated, settle
from secateurs.sharding.shard import shard_of
from secateurs.sharding.team import team_of
from secateurs.targets import Target, all_parameters


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
        InvalidArgumentError: the masks do not fit, or a weight cannot be written in place, or one
            that was pruned before is computed now.
    """
    pairs = matching_targets(model, masks)
    for target, mask in pairs:
        _check_writable(target)
        local_mask(mask, target)
    check_releasable(model)
    return pairs


def check_releasable(model: nn.Module) -> None:
    """Check that every weight that is pruned now can get its original values back.

    Raises:
        InvalidArgumentError: one of them is computed now, as by ``weight_norm``.
    """
    computed = [name for name, module, a, _ in originals_of(model) if _is_computed(module, a)]
    if computed:
        raise InvalidArgumentError(_what_is_computed(computed))


def prune_weights(model: nn.Module, pairs: list[tuple[Target, Mask]]) -> None:
    """Set every masked-out weight to zero, starting from the original values.

    Where a weight was trained since it was pruned, its values now are the original ones from here
    on. What was pruned before and is not masked now is released.

    Args:
        model: the network, without masks on the backward pass.
        pairs: what `check_weights` made of the masks.
    """
    release_weights(model, keep={id(target.parameter) for target, _ in pairs})
    for target, _ in pairs:  # all before the first write: two parameters may lie over one memory
        _save(target)
    _write(pairs)


def release_weights(model: nn.Module, keep: set[int] | None = None) -> None:
    """End the pruning of weights: put original values back, bit for bit.

    What was trained since stays as it is. All ranks of a sharded model must call together.

    Args:
        model: the network.
        keep: ids of the Parameters that are to be pruned again; here it is only seen whether they
            were trained.
    """
    settle(model)
    standing = [kept for kept in originals_of(model) if _stands(*kept[1:])]
    again = [kept[3] for kept in standing if id(kept[3].parameter) in (keep or ())]
    others = [kept[3] for kept in standing if id(kept[3].parameter) not in (keep or ())]
    team = team_of(model) if standing else None
    look(again, team, wait=False)
    trained = dict(zip(map(id, others), look(others, team), strict=True))
    for _, module, attribute, original in list(originals_of(model)):
        if not trained.get(id(original), True):
            # Copied before they are let go: Ctrl-C in between must not lose the originals.
            copy_bits(original.parameter, original.values)
        if id(original) in trained or not _stands(module, attribute, original):
            forget_original(module, attribute)


def restore_weights(model: nn.Module) -> list[str]:
    """Put the original values back, bit for bit, whatever became of the weights since.

    Returns:
        The names of the weights that were trained since, which is lost.

    Raises:
        InvalidArgumentError: a weight is computed now, as by ``weight_norm``; the others are
            restored.
    """
    settle(model)
    lost: dict[int, str] = {}
    computed: list[str] = []
    for name, module, attribute, original in originals_of(model):
        if _is_computed(module, attribute):
            computed.append(name)
            continue
        if _stands(module, attribute, original):
            if original.trained:
                lost.setdefault(id(original.parameter), name)
            copy_bits(original.parameter, original.values)
        forget_original(module, attribute)
    if computed:
        raise InvalidArgumentError(_what_is_computed(computed))
    return list(lost.values())


def forget_originals(model: nn.Module) -> None:
    """Drop the kept originals, so that the pruned weights are the weights."""
    for _, module, attribute, _ in originals_of(model):
        forget_original(module, attribute)


def copy_original(module: nn.Module, attribute: str, values: torch.Tensor) -> bool:
    """Put values back into a parameter that is pruned, and end its pruning.

    Returns:
        Whether it held anything but these values and zeros.
    """
    parameter = module.get_parameter(attribute)
    original = original_of(module, attribute)
    if original is not None and original.values is values:
        trained = original.trained
    else:
        trained = bool(differs(parameter, values))
    copy_bits(parameter, values)
    forget_original(module, attribute)
    return trained


def _stands(module: nn.Module, attribute: str, original: Original) -> bool:
    return original.belongs_to(module._parameters.get(attribute))


def _is_computed(module: nn.Module, attribute: str) -> bool:
    return attribute not in module._parameters and hasattr(module, attribute)


def _what_is_computed(names: list[str]) -> str:
    return (
        f"{', '.join(names)}: pruned, and since then computed by a parametrization or weight_norm, "
        "so the original values cannot be put back: call torch.nn.utils.parametrize."
        "remove_parametrizations or torch.nn.utils.remove_weight_norm first, or keep the weights "
        "as they are by make_permanent(model)"
    )


@torch.no_grad()
def _save(target: Target) -> None:
    """See to it that each place keeps the values that pruning starts from."""
    original, parameter = target.original, target.parameter
    if original is None or original.was_trained or _shares_memory(original):
        values = parameter.detach().clone()
    elif original.doubt() == "gradient" and not _recording(parameter):
        # On a GPU, where some optimizers leave no trace but the gradient: decided over there.
        values = torch.where(differs(parameter, original.values), parameter, original.beside)
    else:
        values = original.beside
    for module, attribute in target.places:
        kept = original_of(module, attribute)
        if kept is None or kept.values is not values:
            keep_original(module, attribute, Original(values, parameter))


def _shares_memory(original: Original) -> bool:
    """Whether someone has put the original's own memory in the parameter's place."""
    here, there = local_of(original.parameter.detach()), local_of(original.values)
    return not here.is_meta and here.numel() > 0 and here.data_ptr() == there.data_ptr()


def _recording(parameter: nn.Parameter) -> bool:
    return parameter.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _check_writable(target: Target) -> None:
    if _overlaps(local_of(target.parameter.detach())):
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
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


@torch.no_grad()
def _write(pairs: list[tuple[Target, Mask]]) -> None:
    kept = [
        (target, mask, [o for o in (original_of(*p) for p in target.places) if o is not None])
        for target, mask in pairs
    ]
    multiply(
        [
            Product(
                local_of(originals[0].values),
                local_mask(mask, target),
                local_of(target.parameter.detach()),
            )
            for target, mask, originals in kept
        ]
    )
    for target, _, originals in kept:
        parameter = target.parameter
        if parameter.device.type == "cpu" and not parameter.is_inference():
            # A pending backward pass that needs the old values must find out that they are gone.
            torch.autograd.graph.increment_version(parameter)
        for original in originals:
            original.written()


@torch.no_grad()
def copy_bits(parameter: nn.Parameter, values: torch.Tensor) -> None:
    """Write values into a parameter, bit for bit if they have its dtype."""
    here, there = local_of(parameter.detach()), local_of(values.detach())
    if values.dtype == parameter.dtype:
        here, there = as_integers(here), as_integers(there)
    here.copy_(there)
