"""State dicts with the names of ``torch.nn.utils.prune``: ``NAME_orig`` and ``NAME_mask``."""

import copy
from collections.abc import Mapping

import torch

from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Masks, check_masks

ORIGINAL, MASK = "_orig", "_mask"


def split_state_dict(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Masks]:
    """Split the state dict of a model that ``torch.nn.utils.prune`` pruned into weights and masks.

    Args:
        state: with ``NAME_orig`` and ``NAME_mask`` for each pruned parameter NAME; not changed.

    Returns:
        The state dict of a model that was never pruned, whose NAME has the values of ``NAME_orig``,
        and the masks, for `secateurs.apply_masks` after ``load_state_dict``.

    Raises:
        InvalidArgumentError: there is no such pair, or a mask has other values than 0 and 1.

    Example:
        >>> import torch, secateurs as sc
        >>> from torch.nn.utils import prune
        >>> theirs = prune.l1_unstructured(torch.nn.Linear(4, 4), "weight", 0.5).state_dict()
        >>> dense, masks = sc.torch_prune.split_state_dict(theirs)
        >>> sorted(dense), masks
        (['bias', 'weight'], Masks(1 parameter, sparsity=0.5000))
    """
    pruned = _pruned_names(state)
    if not pruned:
        raise InvalidArgumentError(
            "the state dict is not of a model that torch.nn.utils.prune pruned: it has no "
            "NAME_orig with a NAME_mask beside it; load it as it is"
        )
    masks = {name: checked_mask(state[name + MASK], name) for name in pruned.values()}
    left_out = {name + MASK for name in pruned.values()}
    dense = {pruned.get(key, key): value for key, value in state.items() if key not in left_out}
    return _like(state, dense), Masks.from_tensors(masks)


def join_state_dict(state: Mapping[str, torch.Tensor], masks: Masks) -> dict[str, torch.Tensor]:
    """Write weights and masks as ``torch.nn.utils.prune`` names them; `split_state_dict` undoes it.

    Args:
        state: a state dict; not changed.
        masks: for some of its parameters.

    Returns:
        The state dict, with ``NAME_orig`` and ``NAME_mask`` instead of each NAME that has a mask.
        It loads into a model on which ``torch.nn.utils.prune.identity`` was called for each.

    Raises:
        InvalidArgumentError: a mask is for none of the tensors, or the state dict has a tensor of
            one of the new names.

    Example:
        >>> import torch, secateurs as sc
        >>> model = torch.nn.Linear(4, 4)
        >>> masks = sc.select(model, 0.5).draw()
        >>> sorted(sc.torch_prune.join_state_dict(model.state_dict(), masks))
        ['bias', 'weight_mask', 'weight_orig']
    """
    check_masks("masks", masks)
    _check_state(state)
    for name, mask in masks.items():
        if getattr(state.get(name), "shape", None) != mask.shape:
            raise InvalidArgumentError(
                f"the masks are for another model: the state dict has no {name!r} of shape "
                f"{tuple(mask.shape)}"
            )
        for new in (name + ORIGINAL, name + MASK):
            if new in state:
                raise InvalidArgumentError(
                    f"the state dict has a {new!r} of its own, which torch.nn.utils.prune would "
                    "overwrite: rename it"
                )
    joined: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key in masks:
            joined[key + ORIGINAL] = value
            joined[key + MASK] = masks[key].to(value.device, value.dtype)
        else:
            joined[key] = value
    return _like(state, joined)


def multiplied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with ``NAME_orig`` times ``NAME_mask`` as NAME, as the model computes it."""
    pruned = _pruned_names(state)
    left_out = {name + MASK for name in pruned.values()}
    return {
        pruned.get(key, key): value * state[pruned[key] + MASK] if key in pruned else value
        for key, value in state.items()
        if key not in left_out
    }


def _pruned_names(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """From each ``NAME_orig`` that has a ``NAME_mask`` beside it, and no NAME, to NAME."""
    _check_state(state)
    names = [key.removesuffix(ORIGINAL) for key in state if key.endswith(ORIGINAL)]
    return {
        name + ORIGINAL: name
        for name in names
        if name not in state and _are_alike(state[name + ORIGINAL], state.get(name + MASK))
    }


def _are_alike(first: object, second: object) -> bool:
    """Whether both are tensors of one shape: a state dict also has the extra state of modules."""
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return False
    return first.shape == second.shape


def _check_state(state: object) -> None:
    if not isinstance(state, Mapping):
        raise InvalidArgumentError(
            f"state must be a state dict, got {type(state).__name__}: write model.state_dict()"
        )


def _like(
    state: Mapping[str, torch.Tensor], values: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A dictionary of the same type, with the versions of modules that torch keeps beside it."""
    if not isinstance(state, dict):
        return values
    like = copy.copy(state)
    like.clear()
    like.update(values)
    return like


def checked_mask(mask: torch.Tensor, name: str) -> torch.Tensor:
    """The mask as bool."""
    keep = mask != 0
    if not torch.equal(keep.to(mask.dtype), mask):
        raise InvalidArgumentError(
            f"the mask of {name} has values other than 0 and 1, which no mask here can have: call "
            f"torch.nn.utils.prune.remove(module, {name.rpartition('.')[2]!r}), which multiplies"
        )
    return keep
