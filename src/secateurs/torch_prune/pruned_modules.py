"""From and to models that ``torch.nn.utils.prune`` pruned.

There a pruned parameter NAME is called ``NAME_orig`` and has a mask ``NAME_mask`` of zeros and ones
beside it; NAME itself is computed from both before each forward pass.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import prune

from secateurs._io.text import listed
from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Masks, check_masks
from secateurs.originals.model_lock import changing
from secateurs.originals.module_state import is_pruned, masks_of, original_of, originals_of
from secateurs.originals.original import Original
from secateurs.originals.restore_weights import compare_all_values, copy_bits, forget_originals
from secateurs.parameters.model_contents import ModelContents
from secateurs.pruning import apply_masks
from secateurs.torch_prune.pruned_state_dict import MASK, ORIGINAL, checked_mask

Model = TypeVar("Model", bound=nn.Module)
_Place = tuple[nn.Module, str]  # a module, and the name of a parameter in it


def from_torch_prune(model: Model) -> Model:
    """Take over a model that ``torch.nn.utils.prune`` pruned, with the same masks and values.

    What was called ``weight_orig`` is the parameter ``weight`` again, the same object, so an
    optimizer that has it goes on. `secateurs.restore` puts the values back that were in it, and the
    names in ``state_dict`` are those of a model that was never pruned.

    Args:
        model: the network, changed in place.

    Returns:
        The same model, pruned as by `secateurs.apply_masks`.

    Raises:
        InvalidArgumentError: nothing in the model was pruned by ``torch.nn.utils.prune``; a mask
            has values between 0 and 1; or a parameter that several modules share has not the same
            mask in all. The model is unchanged.

    Example:
        >>> import torch, secateurs as sc
        >>> from torch.nn.utils import prune
        >>> model = torch.nn.Linear(4, 4)
        >>> model = sc.from_torch_prune(prune.l1_unstructured(model, "weight", 0.5))
        >>> sorted(model.state_dict()), sc.sparsity(model).ratio
        (['bias', 'weight'], 0.5)
    """
    contents = ModelContents(model)
    with changing(model):
        masks = _masks_in(contents)
        _refuse_own(contents)
        _check_shared(contents, masks)
        for module, attribute in masks:
            _take_off(module, attribute)
        try:
            targets = contents.targets.values()  # listed only now, when all have their own names
            found = {t.name: masks[t.places[0]] for t in targets if t.places[0] in masks}
            return apply_masks(model, Masks.from_tensors(found))
        except BaseException:
            for (module, attribute), keep in masks.items():
                _put_on(module, attribute, keep)
            raise


@torch.no_grad()
def to_torch_prune(model: Model, masks: Masks | None = None) -> Model:
    """Hand a pruned model to ``torch.nn.utils.prune``: ``weight_orig``, ``weight_mask``, a hook.

    ``weight_orig`` has the original values, or, where a weight was trained or repaired since it was
    pruned, those that it has now. The Parameters stay the same objects in the same order.

    Args:
        model: the network, changed in place.
        masks: put on the model first, as by `secateurs.apply_masks`; default the masks that it is
            under.

    Returns:
        The same model; for `secateurs` it is no longer pruned.

    Raises:
        InvalidArgumentError: the model is not pruned, or only its backward pass is; it is divided
            over ranks; or a module has an attribute ``NAME_mask``. The model is unchanged.

    Example:
        >>> import torch, secateurs as sc
        >>> model = sc.to_torch_prune(sc.global_prune(torch.nn.Linear(4, 4), 0.5))
        >>> sorted(model.state_dict()), int(model.weight_mask.sum())
        (['bias', 'weight_mask', 'weight_orig'], 8)
    """
    contents = ModelContents(model)
    contents.refuse_ranks("torch.nn.utils.prune", "gather the weights, and load them into one")
    with changing(model):
        _hand_over(contents, masks)
    return model


def _hand_over(contents: ModelContents, masks: Masks | None) -> None:
    if any(masks_of(module) for _, module in contents.modules):
        raise InvalidArgumentError(
            "torch.nn.utils.prune cannot prune the backward pass alone: call "
            "secateurs.restore(model) first, or secateurs.apply_masks(model, masks)"
        )
    if masks is not None:
        check_masks("masks", masks)
        _refuse_names(
            place for n, t in contents.targets.items() if n in masks for place in t.places
        )
        apply_masks(contents.model, masks)
    compare_all_values(contents.modules)
    rows = [
        (module, attribute, original)
        for _, module, attribute, original in originals_of(contents.modules)
        if original_of(module, attribute) is original
    ]
    if not rows:
        raise InvalidArgumentError(
            "the model is not pruned: prune it first, as by secateurs.global_prune(model, 0.5), or "
            "write to_torch_prune(model, masks)"
        )
    _refuse_names((module, attribute) for module, attribute, _ in rows)
    kept = [_mask_now(original) for _, _, original in rows]
    forget_originals(contents.modules)
    for (module, attribute, original), keep in zip(rows, kept, strict=True):
        if not original.was_trained and original.repaired is None:
            copy_bits(original.parameter, original.values)
        _put_on(module, attribute, keep)


def _masks_in(contents: ModelContents) -> dict[_Place, torch.Tensor]:
    """The masks of ``torch.nn.utils.prune``, in the order of the modules."""
    masks: dict[_Place, torch.Tensor] = {}
    for name, module in contents.modules:
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                attribute: str = hook._tensor_name
                where = f"{name}.{attribute}" if name else attribute
                mask = module._buffers[attribute + MASK]
                if mask is not None:
                    masks[module, attribute] = checked_mask(mask, where)
    if not masks:
        raise InvalidArgumentError(
            "nothing in the model was pruned by torch.nn.utils.prune; of a state dict with "
            "weight_orig and weight_mask, secateurs.torch_prune.split_state_dict makes weights and "
            "masks"
        )
    return masks


def _refuse_own(contents: ModelContents) -> None:
    """Masks put on a model take the place of those before, which must not vanish unnoticed."""
    ours = [name for name, module in contents.modules if is_pruned(module)]
    if ours:
        raise InvalidArgumentError(
            f"{listed(ours)}: other parameters of the model are pruned by secateurs: call "
            "secateurs.restore(model), or secateurs.make_permanent(model), first"
        )


def _check_shared(contents: ModelContents, masks: Mapping[_Place, torch.Tensor]) -> None:
    """Refuse a parameter that several modules share, but not with the same mask in all."""
    first: dict[int, _Place] = {}
    for place in masks:
        module, attribute = place
        earlier = first.setdefault(id(module._parameters[attribute + ORIGINAL]), place)
        if not torch.equal(masks[earlier], masks[place]):
            raise _shared_error(attribute)
    known = {(id(module), attribute + ORIGINAL) for module, attribute in masks}
    for _, module in contents.modules:
        for attribute, parameter in module._parameters.items():
            if id(parameter) in first and (id(module), attribute) not in known:
                raise _shared_error(attribute)


def _shared_error(attribute: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{attribute} is shared by several modules, and torch.nn.utils.prune gave it different "
        "masks in them: prune it alike in all, or call torch.nn.utils.prune.remove on each"
    )


def _refuse_names(places: Iterable[_Place]) -> None:
    for module, attribute in places:
        if hasattr(module, attribute + MASK):
            raise InvalidArgumentError(
                f"a {type(module).__name__} has an attribute {attribute}{MASK} of its own, which "
                "torch.nn.utils.prune would overwrite: rename it"
            )


def _mask_now(original: Original) -> torch.Tensor:
    """The mask of a pruned parameter, in its shape; its zeros, if what was pruned came back."""
    parameter, mask = original.parameter, original.mask
    nonzero = parameter != 0
    keep = nonzero if mask is None else mask.to(parameter.device)  # it may have been moved since
    return nonzero if bool((nonzero & ~keep).any()) else keep.expand(parameter.shape)


def _put_on(module: nn.Module, attribute: str, keep: torch.Tensor) -> None:
    names = [attribute + ORIGINAL if n == attribute else n for n in module._parameters]
    # Autograd saves no mask that is made in inference mode; and torch copies no module that has the
    # outcome of a product with a gradient.
    with torch.inference_mode(False), torch.no_grad():
        prune.custom_from_mask(module, attribute, keep)
    _reorder(module, names)


def _take_off(module: nn.Module, attribute: str) -> None:
    names = [attribute if n == attribute + ORIGINAL else n for n in module._parameters]
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == attribute:
            del module._forward_pre_hooks[key]
    parameter = module._parameters.pop(attribute + ORIGINAL)
    del module._buffers[attribute + MASK]
    delattr(module, attribute)  # what the hook computed
    setattr(module, attribute, parameter)  # recurrent layers keep a list, which this updates
    _reorder(module, names)


def _reorder(module: nn.Module, names: Iterable[str]) -> None:
    """Put parameters in an order, by which optimizers load their state."""
    for name in names:
        module._parameters[name] = module._parameters.pop(name)
