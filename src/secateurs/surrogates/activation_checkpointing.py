"""Activation checkpointing: what is computed again sees the draw that was seen the first time.

`torch.utils.checkpoint` runs a function once without keeping what lies between, and again in the
backward pass. It keeps the function in an object of its own, which can be found while it runs the
first time; there the function is replaced by one that brings the draw back first.
"""

import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from secateurs.errors import FailureError

_MODULE = "torch.utils.checkpoint"
_KNOWN, _NOTED = "_secateurs_known", "_secateurs_noted"
_FUNCTIONS = ("recompute_fn", "run_function")  # where torch keeps what it will compute again
_T = TypeVar("_T")
_AUTOGRAD: Any = torch._C.__dict__["_autograd"]

NO_THREAD = 0
"""The thread of what hears nothing: no thread has this number."""


def running_checkpoint() -> Any:
    """The object that holds the innermost checkpointed function that is running the first time.

    Returns:
        None outside of a checkpointed function.

    Raises:
        FailureError: there is one, but this version of torch keeps it elsewhere.
    """
    hooks: Any = _AUTOGRAD._top_saved_tensors_default_hooks(False)
    if hooks is not None and getattr(hooks[0], "__module__", "") == _MODULE:
        name = hooks[0].__qualname__
        if "_recomputation" in name:
            return None  # the second time
        for cell in hooks[0].__closure__ or ():
            if _place(cell.cell_contents):
                return cell.cell_contents
        raise FailureError(
            f"cannot tell what torch {torch.__version__} checkpoints ({name}): call the surrogate "
            "without torch.utils.checkpoint"
        )
    return None if torch.is_grad_enabled() else _reentrant()


def _reentrant() -> Any:
    """The same for ``use_reentrant=True``, which runs the function without gradients."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "forward" and frame.f_globals.get("__name__") == _MODULE:
            return frame.f_locals.get("ctx")
        frame = frame.f_back
    return None


def _place(holder: Any) -> str:
    return next((name for name in _FUNCTIONS if hasattr(holder, name)), "")


def once(holder: Any, who: object) -> bool:
    """Whether this is the first time that ``who`` meets this checkpointed function."""
    known: list[object] = holder.__dict__.setdefault(_KNOWN, [])
    new = all(who is not one for one in known)
    if new:
        known.append(who)
    return new


def repeat_under(holder: Any, again: Callable[[], AbstractContextManager[Any]]) -> None:
    """Let the checkpointed function be computed again inside of ``again()``.

    Args:
        holder: from `running_checkpoint`.
        again: makes a context manager, each time anew.
    """
    name = _place(holder)
    function = getattr(holder, name)

    def repeat(*args: Any, **kwargs: Any) -> Any:
        with again():
            return function(*args, **kwargs)

    setattr(holder, name, repeat)


def record(
    who: object, value: _T, again: Callable[[list[_T]], AbstractContextManager[Any]]
) -> None:
    """If a checkpointed function is running the first time, note a value for when it runs again.

    Args:
        who: notes it.
        value: what ``who`` notes in this function is handed to ``again`` together, in order.
        again: makes what the function shall be computed again under.
    """
    holder = running_checkpoint()
    if holder is None:
        return
    values: list[_T] = holder.__dict__.setdefault(_NOTED, {}).setdefault(id(who), [])
    values.append(value)
    if once(holder, who):
        repeat_under(holder, lambda: again(values))


@contextmanager
def watching(
    modules: Sequence[nn.Module], again: Callable[[], AbstractContextManager[Any]]
) -> Generator[None]:
    """Find the checkpointed functions inside of a model while it runs.

    Args:
        modules: of the network, without scripted ones; a checkpointed function must call one.
        again: what they shall be computed again under.
    """
    if not torch.is_grad_enabled():  # nothing will be computed again
        yield
        return
    watch = _Watch(threading.get_ident(), again)
    outer = running_checkpoint()
    if outer is not None:
        once(outer, watch)  # it lies around the model: its caller sees to it
    with watch.before_each(modules):
        yield


class _Watch:
    """Looks for checkpointed functions before each module's forward, in one thread.

    Args:
        thread: the one to look in.
        again: what is found shall be computed again under.
    """

    def __init__(self, thread: int, again: Callable[[], AbstractContextManager[Any]]):
        self._thread = thread
        self._again = again

    def __reduce__(self) -> tuple[Any, ...]:
        # A network that is copied or saved while it runs takes its hooks with it.
        return _Watch, (NO_THREAD, nullcontext)

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
        if threading.get_ident() != self._thread:  # who calls the model elsewhere
            return
        holder = running_checkpoint()
        if holder is not None and once(holder, self):
            repeat_under(holder, self._again)

    def _look_outside(self, module: nn.Module, args: Any) -> None:
        # Compiled code keeps what it computes again; a look would cut its graph in two.
        if not torch.compiler.is_compiling():
            self._look(module, args)
