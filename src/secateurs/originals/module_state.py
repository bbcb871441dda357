"""What pruning stores in a module: original values, and masks of the backward pass.

Neither are buffers: averages of models and DistributedDataParallel pair the buffers of two models
one by one. They follow the module all the same when it is moved, copied or pickled. A module may
have attributes of the same names, so neither is looked up by its name alone.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.weight_norm import WeightNorm

from secateurs.errors import InvalidArgumentError
from secateurs.originals.original import Original

ORIGINAL_SUFFIX = "_orig"
BACKWARD_SUFFIX = "_backward_mask"
_KEY = "_secateurs"
_REPLACED = ("_apply", "register_parameter")  # methods of a module


NamedModules = Iterable[tuple[str, nn.Module]]
"""All modules of a model, each once, with their qualified names."""


class ModuleState:
    """The original values and the masks of one module.

    It replaces two methods of the module: ``_apply``, by which ``.to()``, ``.half()`` and the like
    convert parameters and buffers, and ``register_parameter``, by which parametrizations and
    ``weight_norm`` replace a weight.

    Args:
        module: the module.

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
        self._replaced: set[str] = set()  # names whose Parameter is another one now
        vars(module).update({name: getattr(self, name) for name in _REPLACED})

    def restore_methods(self) -> None:
        """Give the module its own methods back."""
        own = vars(self.module)
        for name, before in self._before.items():
            own.pop(name, None)
            if before is not None:
                own[name] = before

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Convert all as the module's own method does, and originals and masks in the same way."""
        module = self.module
        current = {a: o for a, o in self.originals.items() if o.belongs_to(parameter_of(module, a))}
        self._call("_apply", fn, recurse)
        with torch.no_grad():
            for attribute, original in current.items():
                parameter = parameter_of(module, attribute)  # some conversions make new ones
                if parameter is not None:
                    repaired = None if original.repaired is None else fn(original.repaired)
                    original = original.moved(fn(original.values), parameter, repaired)
                    keep_original(module, attribute, original)
            for attribute, mask in masks_of(module):
                keep_mask(module, attribute, fn(mask))
        return module

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter, and follow pruned weights that are replaced.

        Raises:
            InvalidArgumentError: the name is ``NAME_orig`` of a pruned parameter: torch's older
                ``spectral_norm`` and ``torch.nn.utils.prune`` use it, too. The weight stays.
        """
        for attribute in (*self.originals, *self.masks):
            if name == attribute + ORIGINAL_SUFFIX:
                self._put_back(attribute, param)
                raise InvalidArgumentError(
                    f"{attribute} of a {self.module._get_name()} is pruned, and "
                    f"{attribute}{ORIGINAL_SUFFIX} is its original: call secateurs.restore(model), "
                    "or make_permanent(model), before torch.nn.utils.spectral_norm or "
                    "torch.nn.utils.prune"
                )
        module, original = self.module, self.originals.get(name)
        was_absent = name not in module._parameters
        self._call("register_parameter", name, param)
        if original is None or param is None:
            return
        if was_absent and name not in self._replaced and _computes(module):
            # A parametrization or weight_norm is removed: the weight becomes a new Parameter.
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
    """Whether a parametrization or torch's older ``weight_norm`` computes weights of a module."""
    hooks = module._forward_pre_hooks.values()
    return "parametrizations" in module._modules or any(isinstance(h, WeightNorm) for h in hooks)


def originals_of(modules: NamedModules) -> Iterator[tuple[str, nn.Module, str, Original]]:
    """Yield (name, module, attribute, original), also of parameters that were replaced since."""
    for prefix, module in modules:
        state = _state_of(module)
        for attribute, original in list(state.originals.items()) if state else ():
            yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, original


def original_of(module: nn.Module, attribute: str) -> Original | None:
    """The original of the parameter that a module has under a name now; None without one."""
    state = _state_of(module)
    original = state.originals.get(attribute) if state else None
    ours = original is not None and original.belongs_to(parameter_of(module, attribute))
    return original if ours else None


def keeps_original(module: nn.Module, attribute: str) -> bool:
    """Whether there is an original under a name, also if its Parameter was replaced since."""
    state = _state_of(module)
    return state is not None and attribute in state.originals


def is_pruned(module: nn.Module) -> bool:
    """Whether a parameter of the module itself is pruned, in its values or its backward pass."""
    state = _state_of(module)
    return state is not None and (
        bool(masks_of(module)) or any(original_of(module, a) for a in list(state.originals))
    )


def keep_original(module: nn.Module, attribute: str, original: Original) -> None:
    """Store an original, which ``module.NAME_orig`` shows; it replaces any earlier one."""
    state = _state_for(module)
    state.originals[attribute] = original
    vars(state.module)[attribute + ORIGINAL_SUFFIX] = original.values


def forget_original(module: nn.Module, attribute: str) -> None:
    """Drop the original of a parameter, if there is one."""
    state = _state_of(module)
    if state is not None and state.originals.pop(attribute, None) is not None:
        vars(state.module).pop(attribute + ORIGINAL_SUFFIX, None)
        _drop_if_empty(state)


def masks_of(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The masks of a module's backward pass, each with its parameter's name."""
    state = _state_of(module)
    names = state.masks if state else ()
    found = [(name, mask_of(module, name)) for name in names]
    return [(name, mask) for name, mask in found if mask is not None]


def mask_of(module: nn.Module, attribute: str) -> torch.Tensor | None:
    """The mask of a parameter's backward pass, if there is one."""
    state = _state_of(module)
    if state is None or attribute not in state.masks:
        return None
    # Looked up where `torch.func.functional_call` puts the mask of one member of an ensemble.
    return vars(state.module).get(attribute + BACKWARD_SUFFIX)


def fits(mask: torch.Tensor, parameter: torch.Tensor | None) -> bool:
    """Whether a mask broadcasts to a parameter; if not, the parameter was replaced since."""
    if parameter is None or mask.dim() != parameter.dim():
        return False
    sizes = zip(mask.shape, parameter.shape, strict=True)
    return all(have in (1, size) for have, size in sizes)


def check_mask_name(module: nn.Module, attribute: str) -> None:
    """Refuse a mask if the module has an attribute of the same name.

    Raises:
        InvalidArgumentError: it has one.
    """
    name = attribute + BACKWARD_SUFFIX
    if hasattr(module, name) and mask_of(module, attribute) is None:
        raise InvalidArgumentError(
            f"{attribute} of a {type(module).__name__} cannot be gradient-pruned: the module "
            f"already has an attribute {name}"
        )


def keep_mask(module: nn.Module, attribute: str, mask: torch.Tensor) -> None:
    """Store the mask of a parameter's backward pass, as ``module.NAME_backward_mask``."""
    check_mask_name(module, attribute)
    if mask.is_inference():
        with torch.inference_mode(False):
            mask = mask.clone()  # autograd saves no tensor that was made in inference mode
    state = _state_for(module)
    state.masks[attribute] = None
    vars(state.module)[attribute + BACKWARD_SUFFIX] = mask


def forget_mask(module: nn.Module, attribute: str) -> None:
    """Drop the mask of a parameter's backward pass, if there is one."""
    state = _state_of(module)
    if state is None or attribute not in state.masks:
        return
    vars(state.module).pop(attribute + BACKWARD_SUFFIX, None)
    state.masks.pop(attribute)
    _drop_if_empty(state)


def parameter_of(module: nn.Module, attribute: str) -> torch.Tensor | None:
    """The Parameter, or else the buffer, that a module has under a name now."""
    # A lookup by name gives the pruned weight while a surrogate runs in this thread.
    for name, parameter in module._parameters.items():
        if name == attribute and parameter is not None:
            return parameter
    return module._buffers.get(attribute)


def _state_of(module: nn.Module) -> ModuleState | None:
    own = vars(module)
    # A surrogate stands for its network, which stores the state.
    return vars(own["_proxied"][0]).get(_KEY) if "_proxied" in own else own.get(_KEY)


def _state_for(module: nn.Module) -> ModuleState:
    module = vars(module)["_proxied"][0] if "_proxied" in vars(module) else module
    own = vars(module)
    if _KEY not in own:
        own[_KEY] = ModuleState(module)
    return own[_KEY]


def _drop_if_empty(state: ModuleState) -> None:
    if not state.originals and not state.masks:
        vars(state.module).pop(_KEY, None)
        state.restore_methods()
