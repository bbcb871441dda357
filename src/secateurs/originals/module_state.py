"""What pruning keeps beside the parameters of a module: original values, masks of backward passes.

Original values are no buffers, since others pair the buffers of two models one by one (averages of
models, DistributedDataParallel), but a module takes them along when it is moved, copied or pickled.
Masks are buffers, so that `torch.func.stack_module_state` stacks them. Neither is found by its name
alone, which a module may use itself.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.weight_norm import WeightNorm

from secateurs.errors import InvalidArgumentError
from secateurs.originals.original import Original

ORIGINAL_SUFFIX = "_orig"
BACKWARD_SUFFIX = "_backward_mask"
_PLACE = "_secateurs"
_REPLACED = ("_apply", "register_parameter")  # methods of a module


class Kept:
    """All that is kept for one module; two methods of the module are replaced by its own meanwhile.

    ``.to()``, ``.half()`` and their like end in ``_apply``, which knows parameters and buffers.
    What takes a weight apart, or puts it together again, calls ``register_parameter``.

    Args:
        module: whose parameters it is about.

    Attributes:
        originals: by the parameter's name in the module.
        masks: names of the parameters whose backward pass is masked, in order.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.originals: dict[str, Original] = {}
        self.masks: dict[str, None] = {}
        self._before = {name: vars(module).get(name) for name in _REPLACED}
        self._order = tuple(module._parameters)
        self._replaced: set[str] = set()
        vars(module).update({name: getattr(self, name) for name in _REPLACED})

    def give_back(self) -> None:
        """Let the module have its own methods again."""
        own = vars(self.module)
        for name, before in self._before.items():
            own.pop(name, None)
            if before is not None:
                own[name] = before

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Do what ``_apply`` does, to original values too."""
        module = self.module
        standing = {
            a: o for a, o in self.originals.items() if o.belongs_to(parameter_of(module, a))
        }
        self._call("_apply", fn, recurse)
        with torch.no_grad():
            for attribute, original in standing.items():
                parameter = parameter_of(module, attribute)  # some conversions make new ones
                if parameter is not None:
                    repaired = None if original.repaired is None else fn(original.repaired)
                    original = original.moved(fn(original.values), parameter, repaired)
                    keep_original(module, attribute, original)
        return module

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Do what ``register_parameter`` does, and see what becomes of pruned weights.

        Raises:
            InvalidArgumentError: the name is that of an original: torch's older ``spectral_norm``
                and ``torch.nn.utils.prune`` use it themselves. The weight is where it was.
        """
        for attribute in (*self.originals, *self.masks):
            if name == attribute + ORIGINAL_SUFFIX:
                self._put_back(attribute, param)
                raise InvalidArgumentError(_in_the_way(self.module, attribute))
        module, original = self.module, self.originals.get(name)
        away = name not in module._parameters
        self._call("register_parameter", name, param)
        if original is None or param is None:
            return
        if away and name not in self._replaced and _computes(module):
            # What computed the weight is taken off, and leaves a new Parameter of its values.
            keep_original(module, name, original.moved(original.values, param))
        elif original.belongs_to(param):
            self._replaced.discard(name)
        else:
            self._replaced.add(name)

    def _put_back(self, attribute: str, param: nn.Parameter | None) -> None:
        parameters = self.module._parameters
        if attribute in parameters or param is None:
            return
        parameters[attribute] = param
        for name in self._order:  # the order of parameters decides ties, and what optimizers load
            if name in parameters:
                parameters[name] = parameters.pop(name)

    def _call(self, name: str, *args: Any) -> None:
        before = self._before[name]
        if before is None:
            getattr(type(self.module), name)(self.module, *args)
        else:
            before(*args)


def _computes(module: nn.Module) -> bool:
    """Whether a parametrization or the older ``weight_norm`` computes weights of a module."""
    hooks = module._forward_pre_hooks.values()
    return "parametrizations" in module._modules or any(isinstance(h, WeightNorm) for h in hooks)


def _in_the_way(module: nn.Module, attribute: str) -> str:
    return (
        f"{attribute} of a {module._get_name()} is pruned, and {attribute}{ORIGINAL_SUFFIX} is its "
        "original: call secateurs.restore(model), or make_permanent(model), before "
        "torch.nn.utils.spectral_norm or torch.nn.utils.prune"
    )


def originals_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Original]]:
    """Yield (name, module, attribute, original) of all that is kept, stale or not."""
    for prefix, module in model.named_modules():
        kept = _kept_below(module)
        for attribute, original in list(kept.originals.items()) if kept else ():
            yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, original


def original_of(module: nn.Module, attribute: str) -> Original | None:
    """What is kept for the parameter that stands in a module under a name now."""
    kept = _kept_below(module)
    original = kept.originals.get(attribute) if kept else None
    ours = original is not None and original.belongs_to(parameter_of(module, attribute))
    return original if ours else None


def keeps_original(module: nn.Module, attribute: str) -> bool:
    """Whether anything is kept under a name, also of a Parameter that is gone."""
    kept = _kept_below(module)
    return kept is not None and attribute in kept.originals


def is_pruned(module: nn.Module) -> bool:
    """Whether a parameter of this module itself is pruned, in its weights or its backward pass."""
    kept = _kept_below(module)
    return kept is not None and (
        bool(masks_of(module)) or any(original_of(module, a) for a in list(kept.originals))
    )


def keep_original(module: nn.Module, attribute: str, original: Original) -> None:
    """Keep an original in place of any that was kept; it is seen as ``module.NAME_orig``."""
    kept = _kept_for(module)
    kept.originals[attribute] = original
    vars(kept.module)[attribute + ORIGINAL_SUFFIX] = original.values


def forget_original(module: nn.Module, attribute: str) -> None:
    """Keep it no longer."""
    kept = _kept_below(module)
    if kept is not None and kept.originals.pop(attribute, None) is not None:
        vars(kept.module).pop(attribute + ORIGINAL_SUFFIX, None)
        _tidy(kept)


def backward_masks(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Yield (module, attribute, mask) of all masks of backward passes."""
    for module in model.modules():
        for attribute, mask in masks_of(module):
            yield module, attribute, mask


def masks_of(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The masks of one module, each with its parameter's name."""
    kept = _kept_below(module)
    if kept is None or not kept.masks:
        return []
    found = [(name, module._buffers.get(name + BACKWARD_SUFFIX)) for name in kept.masks]
    return [(name, mask) for name, mask in found if mask is not None]


def mask_of(module: nn.Module, attribute: str) -> torch.Tensor | None:
    """The mask of the backward pass of one parameter, if there is one."""
    kept = _kept_below(module)
    if kept is None or attribute not in kept.masks:
        return None
    return module._buffers.get(attribute + BACKWARD_SUFFIX)


def fits(mask: torch.Tensor, parameter: torch.Tensor | None) -> bool:
    """Whether a mask broadcasts to a parameter, or is of one that stood there before."""
    if parameter is None or mask.dim() != parameter.dim():
        return False
    sizes = zip(mask.shape, parameter.shape, strict=True)
    return all(have in (1, size) for have, size in sizes)


def check_mask_name(module: nn.Module, attribute: str) -> None:
    """Refuse to keep a mask where the module has something of its name itself.

    Raises:
        InvalidArgumentError: it has.
    """
    name = attribute + BACKWARD_SUFFIX
    if hasattr(module, name) and mask_of(module, attribute) is None:
        raise InvalidArgumentError(
            f"{attribute} of a {type(module).__name__} cannot be gradient-pruned: the module "
            f"already has an attribute {name}"
        )


def keep_mask(module: nn.Module, attribute: str, mask: torch.Tensor) -> None:
    """Keep the mask of a backward pass."""
    try:
        module.register_buffer(attribute + BACKWARD_SUFFIX, mask, persistent=False)
    except KeyError:
        check_mask_name(module, attribute)
        raise
    _kept_for(module).masks[attribute] = None


def forget_mask(module: nn.Module, attribute: str) -> None:
    """Keep it no longer."""
    kept = _kept_below(module)
    if kept is None or attribute not in kept.masks:
        return
    module._buffers.pop(attribute + BACKWARD_SUFFIX, None)
    module._non_persistent_buffers_set.discard(attribute + BACKWARD_SUFFIX)
    kept.masks.pop(attribute)
    _tidy(kept)


def parameter_of(module: nn.Module, attribute: str) -> torch.Tensor | None:
    """The Parameter, or the buffer, that stands in a module under a name now."""
    # Not looked up by name: that gives the pruned weight where a surrogate runs in this thread.
    found = next((p for name, p in module._parameters.items() if name == attribute), None)
    return module._buffers.get(attribute) if found is None else found


def _kept_below(module: nn.Module) -> Kept | None:
    own = vars(module)
    # A surrogate is seen as its network, and what is kept lies there.
    return vars(own["_proxied"][0]).get(_PLACE) if "_proxied" in own else own.get(_PLACE)


def _kept_for(module: nn.Module) -> Kept:
    module = vars(module)["_proxied"][0] if "_proxied" in vars(module) else module
    own = vars(module)
    kept = own.get(_PLACE)
    if kept is None:
        kept = own[_PLACE] = Kept(module)
    return kept


def _tidy(kept: Kept) -> None:
    if kept.originals or kept.masks:
        return
    vars(kept.module).pop(_PLACE, None)
    kept.give_back()
