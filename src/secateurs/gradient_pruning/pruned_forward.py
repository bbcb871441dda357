"""The ``forward`` of a module whose backward pass is pruned, or that contains such modules.

It runs under a function mode that sees every function that is called, which takes longer than many
of these functions. A first call shows which modules need the mode, since they call functions with
masked weights themselves; the others only call modules that hold weights. If such a module reads a
masked weight in a later call after all, the mode is entered at that moment.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import _pop_mode, _push_mode

from secateurs.errors import FailureError
from secateurs.gradient_pruning.backward_state import state_of, weight_now
from secateurs.gradient_pruning.function_mode import (
    MaskedWeights,
    active_mode,
    mode_count,
    without_our_mode,
)
from secateurs.gradient_pruning.masked_weight import transforms_active
from secateurs.originals.module_state import masks_of

# In these, torch runs other code, with other rounding, if no gradient is wanted and no function
# mode is active.
FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class _Running(threading.local):
    """The outermost module that runs without the mode in this thread.

    Attributes:
        module: the module, None if none runs.
        below: how many function modes were active when it was called.
        mode: the mode that was entered after all.
    """

    module: nn.Module | None = None
    below: int = 0
    mode: MaskedWeights | None = None


_running = _Running()


def is_called_without_mode(module: nn.Module) -> bool:
    """Whether a module is called by one that runs without the mode, and needs none itself."""
    return (
        _is_ordinary_call()
        and _running.module is not None
        and not mode_count()
        and _needs_no_mode(module)
    )


def run_forward(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a module's own ``forward`` under a mode that knows the masked weights that it may use."""
    if not torch.is_grad_enabled():
        return forward(module, *args, **kwargs)
    if isinstance(module, FAST_PATHS) and not wants_gradients(module, args, kwargs):
        with without_our_mode():
            return forward(module, *args, **kwargs)
    mode = active_mode()
    if mode is not None:
        mode.add_module(module)
        return _checked(module, mode, forward, args, kwargs)
    if _is_ordinary_call() and _needs_no_mode(module):
        return _without_mode(module, forward, args, kwargs)
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
    if _is_ordinary_call():
        with mode.running(module):
            output = forward(module, *args, **kwargs)
    else:
        output = forward(module, *args, **kwargs)
    for weight in own:
        if weight not in mode.used:
            raise not_handed(module)
    if _is_ordinary_call():
        _note_needs(module, bool(own) or mode.handed_by(module))
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


def _is_ordinary_call() -> bool:
    """Whether neither the compiler nor a transform of torch.func watches."""
    return not torch.compiler.is_compiling() and not transforms_active()


def _needs_no_mode(module: nn.Module) -> bool:
    """Whether an earlier call has shown that a module needs no mode."""
    state = state_of(module)
    return state is not None and state.needs_mode.get(module.training) is False


def _note_needs(module: nn.Module, needs: bool) -> None:
    """Note after a call under the mode whether the module needs it; once it did, it always does."""
    state = state_of(module)
    if state is not None and (needs or module.training not in state.needs_mode):
        state.needs_mode[module.training] = needs


def _without_mode(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run the ``forward`` of a module that needs no mode."""
    if _running.module is not None:
        return forward(module, *args, **kwargs)
    _running.module, _running.below = module, mode_count()
    try:
        return forward(module, *args, **kwargs)
    finally:
        _running.module, late = None, _running.mode
        if late is not None:
            _running.mode = None
            _remove(late)


def weight_is_read() -> None:
    """Enter the mode in the module that runs without it, since a masked weight is read."""
    module = _running.module
    if module is None or _running.mode is not None or not torch.is_grad_enabled():
        return
    if active_mode() is not None:
        return
    _note_needs(module, True)
    _running.mode = mode = MaskedWeights(module)
    # Below the modes that were entered since, which will be left before it.
    above = [_pop_mode() for _ in range(mode_count() - _running.below)]
    for each in (mode, *reversed(above)):
        _push_mode(each)


def _remove(mode: MaskedWeights) -> None:
    above: list[Any] = []
    while mode_count():
        top = _pop_mode()
        if top is mode:
            break
        above.append(top)
    for each in reversed(above):
        _push_mode(each)
