"""Convolutions and linear layers of torch prune their backward pass themselves, without a mode."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.gradient_pruning.backward_state import BackwardState, state_of
from secateurs.gradient_pruning.function_mode import active_mode, mode_count
from secateurs.gradient_pruning.functional import convolution, linear, takes_kernels
from secateurs.gradient_pruning.kernel_products import SparseKernels, kernel_pattern
from secateurs.gradient_pruning.masked_weight import is_of_outputs, transforms_active
from secateurs.gradient_pruning.saved_weight import (
    BackwardWeight,
    is_ordinary,
    is_unwatched,
)
from secateurs.gradient_pruning.sparse_products import SparsePattern, sparse_pattern
from secateurs.originals.module_state import fits, mask_of

_CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}

DirectForward = Callable[[nn.Module, Tensor], Tensor | None]
_Dense = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]
_Masked = Callable[[Any, Tensor, BackwardWeight, Any], Tensor]


def direct_forward(base: type[nn.Module]) -> DirectForward | None:
    """What computes the output of a layer itself; None if the class has a ``forward`` of its own.

    Args:
        base: the class of a module before its backward pass was pruned.

    Returns:
        A function of the layer and its input; None where the function mode must be used instead.
    """
    kind = torch_kind(base)
    if kind is None or inspect.getattr_static(base, "weight", None) is not None:
        return None
    if kind is nn.Linear:
        return _direct(_dense_linear, _masked_linear)
    return _direct(cast(Any, base)._conv_forward, _masked_convolution(_CONVOLUTIONS[kind]))


def torch_kind(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The linear layer or convolution of torch whose ``forward`` a class runs; None if none."""
    for kind in (nn.Linear, *_CONVOLUTIONS):
        own, other = (getattr(each, "_conv_forward", None) for each in (cls, kind))
        if cls.forward is kind.forward and own is other:
            return kind
    return None


def _direct(dense: _Dense, masked: _Masked) -> DirectForward:
    # Little Python here: of a small layer's time it takes much.
    def call(module: nn.Module, x: Tensor) -> Tensor | None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or transforms_active():
            return None
        if mode_count() and active_mode() is not None:
            return None
        pruned = _pruned_weight(module)
        if pruned is None:
            return None
        sparse = None if pruned.sparse is None else _sparse_for(x, pruned)
        if sparse is None and not pruned.is_of_outputs and is_unwatched(x):
            output = dense(module, x, pruned.weight, _bias(module))
            if pruned.prune(x, output):
                return output
        return masked(module, x, pruned, sparse)

    return call


def _pruned_weight(module: nn.Module) -> BackwardWeight | None:
    """The weight and the mask of a layer, where it can prune its backward pass itself."""
    own, state = module.__dict__, state_of(module)
    if state is None or "_conv_forward" in own:
        return None
    keep, known = mask_of(module, "weight"), state.pruned
    weight = own["_parameters"].get("weight")
    if weight is None or keep is None:
        return None
    if known is None or not known.is_of(weight, keep):
        return _new_pruned_weight(module, state, weight, keep)
    if not known.was_used:  # for a mask of one call alone, a pattern would take too long
        known.was_used, known.sparse = True, _pattern(module, known)
    return known


def _pattern(module: nn.Module, pruned: BackwardWeight) -> SparsePattern | SparseKernels | None:
    """The pattern of the mask of a layer where sparse products pay."""
    if isinstance(module, nn.Conv2d):
        takes = takes_kernels(module.stride, module.dilation, module.groups)
        return kernel_pattern(pruned.weight, pruned.keep) if takes else None
    return sparse_pattern(pruned.weight, pruned.keep)


def _new_pruned_weight(
    module: nn.Module, state: BackwardState, weight: Tensor, keep: Tensor
) -> BackwardWeight | None:
    if not is_ordinary(weight, keep) or keep.device != weight.device or not fits(keep, weight):
        return None
    state.pruned = BackwardWeight(weight, keep, state.masked_gradient, state.scratch)
    state.pruned.is_of_outputs = getattr(module, "groups", 1) == 1 and is_of_outputs(
        weight, keep, 0
    )
    return state.pruned


def _bias(module: Any) -> Tensor | None:
    parameters = module.__dict__["_parameters"]
    if "bias" in parameters:  # which saves the call of ``__getattr__``
        return parameters["bias"]
    return module.bias


def _dense_linear(_: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def _sparse_for(x: Tensor, pruned: BackwardWeight) -> Any:
    """The pattern of the mask, if there is a gradient for which sparse products pay."""
    sparse, needed = pruned.sparse, x.requires_grad or pruned.masked_gradient
    pays = needed and sparse is not None and sparse.pays(x, pruned.weight) and is_unwatched(x)
    return sparse if pays else None


def _masked_linear(module: Any, x: Tensor, pruned: BackwardWeight, sparse: Any) -> Tensor:
    return linear(
        x, pruned.weight, pruned.keep, _bias(module), masked_gradient=pruned.masked_gradient,
        sparse=sparse,
    )  # fmt: skip


def _masked_convolution(dims: int) -> _Masked:
    operation = convolution(dims, transposed=False)

    def call(module: Any, x: Tensor, pruned: BackwardWeight, sparse: Any) -> Tensor:
        padding = module.padding
        if module.padding_mode != "zeros":
            widths = module._reversed_padding_repeated_twice
            x, padding = F.pad(x, widths, mode=module.padding_mode), 0
        return operation(
            x, pruned.weight, pruned.keep, _bias(module), module.stride, padding, module.dilation,
            module.groups, masked_gradient=pruned.masked_gradient, sparse=sparse,
        )  # fmt: skip

    return call
