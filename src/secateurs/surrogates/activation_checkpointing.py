"""Activation checkpointing, which surrogates refuse.

`torch.utils.checkpoint` runs a function without keeping its intermediate results, and runs it again
in the backward pass. The call of the surrogate is over then, so the second run would be dense.
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
"""No thread has this number: copied hooks, which get it, do nothing."""


def refuse_around() -> None:
    """Refuse a call of a surrogate inside a checkpointed function, in its first or second run."""
    if _in_checkpoint() or _C._current_graph_task_id() >= 0:
        raise FailureError(
            "a surrogate was called by a function that torch.utils.checkpoint computes again in "
            "the backward pass, or by the backward pass itself, where its draw is not known: call "
            "it without checkpoint, with fewer images at a time"
        )


@contextmanager
def refuse_inside(modules: Sequence[nn.Module]) -> Generator[None]:
    """For a ``with`` block, refuse checkpointed functions that call one of these modules.

    Scripted modules, which take no hooks, must not be among them.
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
    """`_in_checkpoint` for ``use_reentrant=True``, which runs the function without gradients."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "forward" and frame.f_globals.get("__name__") == _MODULE:
            return True
        frame = frame.f_back
    return False


class _Watch:
    """Detects checkpointed functions before each module's forward, in one thread."""

    def __init__(self, thread: int):
        self._thread = thread

    def __reduce__(self) -> tuple[Any, ...]:
        # If the network is copied or saved during the call, so are its hooks.
        return _Watch, (NO_THREAD,)

    @contextmanager
    def before_each(self, modules: Sequence[nn.Module]) -> Generator[None]:
        """Hook the modules, faster than by one hook handle for each."""
        key, check = id(self), self._check
        for module in modules:
            module._forward_pre_hooks[key] = check
        try:
            yield
        finally:
            for module in modules:
                module._forward_pre_hooks.pop(key, None)

    def _check(self, module: nn.Module, args: Any) -> None:  # noqa: ARG002
        # Compiled code keeps the masks for the second run, and a check would break its graph. But a
        # module compiled on its own (``module.compile()``) is called by uncompiled code.
        if torch.compiler.is_compiling() and module._compiled_call_impl is None:
            return
        if threading.get_ident() == self._thread and _in_checkpoint():
            raise FailureError(
                f"the network runs {module._get_name()} under torch.utils.checkpoint, which "
                "computes it again in the backward pass, where the draw is not known: switch "
                "checkpointing off, such as by model.gradient_checkpointing_disable() or "
                "model.set_grad_checkpointing(False)"
            )
