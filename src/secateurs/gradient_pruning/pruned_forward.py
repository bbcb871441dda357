"""The ``forward`` of a module whose backward pass is pruned, or that contains such modules."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.errors import FailureError
from secateurs.gradient_pruning.backward_state import weight_now
from secateurs.gradient_pruning.function_mode import (
    MaskedWeights,
    active_mode,
    without_our_mode,
)
from secateurs.gradient_pruning.modes_needed import (
    is_ordinary_call,
    needs_no_mode,
    note_needs,
    without_mode,
)
from secateurs.originals.module_state import masks_of

_function_modes = cast(Any, torch._C)._len_torch_function_stack

# In these, torch runs other code, with other rounding, if no gradient is wanted and no function
# mode is active.
FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def run_forward(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a module's own ``forward`` under a mode that knows the masked weights that it may use."""
    if not torch.is_grad_enabled():
        return forward(module, *args, **kwargs)
    if isinstance(module, FAST_PATHS) and not wants_gradients(module, args, kwargs):
        with without_our_mode():
            return forward(module, *args, **kwargs)
    mode = active_mode(module) if _function_modes() else None
    if mode is not None:
        return _checked(module, mode, forward, args, kwargs)
    if is_ordinary_call() and needs_no_mode(module):
        return without_mode(module, forward, args, kwargs)
    mode = MaskedWeights(module)
    with mode:
        return _checked(module, mode, forward, args, kwargs)


def _checked(
    module: nn.Module, mode: MaskedWeights, forward: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run ``forward``, and check that it passed its masked weights to functions we replace."""
    own = [id(weight_now(module, attribute)) for attribute, _ in masks_of(module)]
    for weight in own:
        mode.used.discard(weight)
    if is_ordinary_call():
        with mode.running(module):
            output = forward(module, *args, **kwargs)
    else:
        output = forward(module, *args, **kwargs)
    for weight in own:
        if weight not in mode.used:
            raise not_handed(module)
    if is_ordinary_call():
        note_needs(module, bool(own) or mode.handed_by(module))
    return output


def not_handed(module: nn.Module) -> FailureError:
    """The error for a module whose ``forward`` used its masked weight in no function we replace."""
    for attribute, _ in masks_of(module):
        if parametrize.is_parametrized(module, attribute):
            return FailureError(
                f"{attribute} of a {module._get_name()} is computed by a parametrization that was "
                "put on after gradient pruning, so its backward pass cannot be pruned: call "
                "restore(model), and prune again without this layer or without the parametrization"
            )
    return FailureError(
        f"{module._get_name()} did not hand its weight to a convolution, a matrix product or an "
        "attention function, so its backward pass cannot be pruned: exclude this layer"
    )


def wants_gradients(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the output of a call of a module can have a gradient."""
    tensors = (*args, *kwargs.values(), *module.parameters())
    return any(isinstance(t, Tensor) and t.requires_grad for t in tensors)
