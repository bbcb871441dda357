"""Activation checkpointing, which surrogates refuse.

`torch.utils.checkpoint` runs a function once without keeping what lies between, and again in the
backward pass: the masks of the call are gone then, and what is computed again would be dense.
"""

import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from secateurs.errors import FailureError

_MODULE = "torch.utils.checkpoint"
_C: Any = torch._C

NO_THREAD = 0
"""No thread has this number: hooks that were copied act in none."""


def refuse_around() -> None:
    """Refuse a call of a surrogate that a checkpointed function makes, the first time or again.

    Raises:
        FailureError: it is one.
    """
    if _in_checkpoint() or _C._current_graph_task_id() >= 0:
        raise FailureError(
            "a surrogate was called by a function that torch.utils.checkpoint computes again in "
            "the backward pass, or by the backward pass itself, where its draw is not known: call "
            "it without checkpoint, with fewer images at a time"
        )


@contextmanager
def refuse_inside(modules: Sequence[nn.Module]) -> Generator[None]:
    """For a ``with`` block, refuse checkpointed functions that call one of these modules.

    Args:
        modules: of a network that a surrogate runs, without scripted ones.
    """
    if not torch.is_grad_enabled():  # nothing will be computed again
        yield
        return
    with _Watch(threading.get_ident()).before_each(modules):
        yield


def _in_checkpoint() -> bool:
    hooks: Any = _C._autograd._top_saved_tensors_default_hooks(False)
    if hooks is not None and getattr(hooks[0], "__module__", "") == _MODULE:
        return True
    return not torch.is_grad_enabled() and _in_reentrant_checkpoint()


def _in_reentrant_checkpoint() -> bool:
    """The same for ``use_reentrant=True``, which runs the function without gradients."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "forward" and frame.f_globals.get("__name__") == _MODULE:
            return True
        frame = frame.f_back
    return False


class _Watch:
    """Looks for checkpointed functions before each module's forward, in one thread.

    Args:
        thread: the one to look in.
    """

    def __init__(self, thread: int):
        self._thread = thread

    def __reduce__(self) -> tuple[Any, ...]:
        # A network that is copied or saved while it runs takes its hooks with it.
        return _Watch, (NO_THREAD,)

    @contextmanager
    def before_each(self, modules: Sequence[nn.Module]) -> Generator[None]:
        """Entered by hand, since a handle for each module would take longer than a small layer."""
        key, look, look_outside = id(self), self._look, self._look_outside
        for module in modules:
            # What calls a module that is compiled by itself is not compiled.
            alone = module._compiled_call_impl is not None
            module._forward_pre_hooks[key] = look if alone else look_outside
        try:
            yield
        finally:
            for module in modules:
                module._forward_pre_hooks.pop(key, None)

    def _look(self, module: nn.Module, args: Any) -> None:  # noqa: ARG002
        if threading.get_ident() == self._thread and _in_checkpoint():
            raise FailureError(
                f"the network runs {module._get_name()} under torch.utils.checkpoint, which "
                "computes it again in the backward pass, where the draw is not known: switch "
                "checkpointing off, such as by model.gradient_checkpointing_disable() or "
                "model.set_grad_checkpointing(False)"
            )

    def _look_outside(self, module: nn.Module, args: Any) -> None:
        # Compiled code keeps what it computes again; a look would cut its graph in two.
        if not torch.compiler.is_compiling():
            self._look(module, args)
