"""Which modules need the function mode: those that call functions with masked weights themselves.

The mode sees every function that is called, which takes longer than many of these functions. A
first call under it shows which modules need it; the others only call modules that hold weights. If
such a module reads a masked weight in a later call after all, the mode is entered at that moment.
"""

import threading
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

from secateurs.gradient_pruning.backward_state import state_of
from secateurs.gradient_pruning.function_mode import MaskedWeights
from secateurs.gradient_pruning.masked_weight import transforms_active


def is_ordinary_call() -> bool:
    """Whether neither the compiler nor a transform of torch.func watches."""
    return not torch.compiler.is_compiling() and not transforms_active()


def needs_no_mode(module: nn.Module) -> bool:
    """Whether an earlier call has shown that a module needs no mode."""
    state = state_of(module)
    return state is not None and state.needs_mode.get(module.training) is False


def note_needs(module: nn.Module, needs: bool) -> None:
    """Note after a call under the mode whether the module needs it; once it did, it always does."""
    state = state_of(module)
    if state is not None and (needs or module.training not in state.needs_mode):
        state.needs_mode[module.training] = needs


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
        is_ordinary_call()
        and _running.module is not None
        and not _depth()
        and needs_no_mode(module)
    )


def without_mode(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run the ``forward`` of a module that needs no mode."""
    if _running.module is not None:
        return forward(module, *args, **kwargs)
    _running.module, _running.below = module, _depth()
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
    if any(isinstance(mode, MaskedWeights) for mode in _get_current_function_mode_stack()):
        return
    note_needs(module, True)
    _running.mode = mode = MaskedWeights(module)
    # Below the modes that were entered since, which will be left before it.
    above = [_pop_mode() for _ in range(_depth() - _running.below)]
    for each in (mode, *reversed(above)):
        _push_mode(each)


def _remove(mode: MaskedWeights) -> None:
    above: list[Any] = []
    while _depth():
        top = _pop_mode()
        if top is mode:
            break
        above.append(top)
    for each in reversed(above):
        _push_mode(each)


def _depth() -> int:
    return cast(Any, torch._C)._len_torch_function_stack()
