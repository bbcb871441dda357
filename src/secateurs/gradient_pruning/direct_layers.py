"""Convolutions and linear layers of torch call their masked function themselves, without a mode."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from secateurs.gradient_pruning.backward_state import has_masked_gradient
from secateurs.gradient_pruning.function_mode import MaskedWeights
from secateurs.gradient_pruning.functional import convolution, linear
from secateurs.gradient_pruning.masked_weight import ORDINARY
from secateurs.gradient_pruning.modes_needed import is_ordinary_call
from secateurs.originals.module_state import fits, mask_of

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}

Call = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def direct_call(base: type[nn.Module]) -> Call | None:
    """What the ``forward`` of a class does with input, weight and mask; None if it is its own.

    Args:
        base: the class of a module before its backward pass was pruned.
    """
    if inspect.getattr_static(base, "weight", None) is not None:
        return None
    if base.forward is nn.Linear.forward:
        return _linear
    for kind, dims in _CONVOLUTIONS.items():
        plain: Any = kind
        own: Any = getattr(base, "_conv_forward", None)
        if base.forward is kind.forward and own is plain._conv_forward:
            return _convolution(dims)
    return None


def direct_operands(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """The weight and the mask of a layer, where it can call its masked function itself."""
    # Our mode first, which would otherwise see what is asked of the weight here.
    if not torch.is_grad_enabled() or not is_ordinary_call() or _our_mode_is_active():
        return None
    own = vars(module)
    parameters, keep = own.get("_parameters", {}), mask_of(module, "weight")
    if keep is None or "weight" not in parameters or "_conv_forward" in own:
        return None
    weight = parameters["weight"]
    if type(weight) not in ORDINARY or type(keep) is not Tensor or keep.device != weight.device:
        return None
    return (weight, keep) if fits(keep, weight) else None


def _our_mode_is_active() -> bool:
    if not cast(Any, torch._C)._len_torch_function_stack():
        return False
    return any(isinstance(mode, MaskedWeights) for mode in _get_current_function_mode_stack())


def _bias(module: Any) -> Tensor | None:
    parameters = vars(module)["_parameters"]
    if "bias" in parameters:  # which saves the call of ``__getattr__``
        return parameters["bias"]
    return module.bias


def _linear(module: Any, x: Tensor, weight: Tensor, keep: Tensor) -> Tensor:
    only_kept = has_masked_gradient(module)
    return linear(x, weight, keep, _bias(module), masked_gradient=only_kept)


def _convolution(dims: int) -> Call:
    operation = convolution(dims, transposed=False)

    def call(module: Any, x: Tensor, weight: Tensor, keep: Tensor) -> Tensor:
        padding = module.padding
        if module.padding_mode != "zeros":
            widths = module._reversed_padding_repeated_twice
            x, padding = F.pad(x, widths, mode=module.padding_mode), 0
        return operation(
            x, weight, keep, _bias(module), module.stride, padding, module.dilation, module.groups,
            masked_gradient=has_masked_gradient(module),
        )  # fmt: skip

    return call
