"""What surrogates need of torch's transforms: the compiler, and those of ``torch.func``."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

from secateurs.errors import FailureError

_C: Any = torch._C
_EVAL: Any = getattr(_C._dynamo, "eval_frame", None)
_WHOLE = (
    "a surrogate draws outside of what is compiled, so it cannot be part of one graph: leave out "
    "fullgraph=True, or compile surrogate.network"
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def between_graphs(function: _Function) -> _Function:
    """Let torch.compile leave a function as it is, and compile the network that it calls.

    Marks what ``torch.compiler.disable(recursive=False)`` marks, without loading the compiler.
    """
    marks: Any = function
    marks._torchdynamo_disable, marks._torchdynamo_disable_msg = True, _WHOLE
    if hasattr(_EVAL, "set_code_exec_strategy"):
        skip = _EVAL._FrameExecStrategy(_EVAL._FrameAction.SKIP, _EVAL._FrameAction.DEFAULT)
        _EVAL.set_code_exec_strategy(marks.__code__, skip)
    return function


class Compiler:
    """For a ``with`` block, switch torch.compile off; `call` calls a function with it."""

    @between_graphs
    def __enter__(self) -> "Compiler":
        self._loaded = "torch._dynamo" in sys.modules
        if self._loaded:
            self._callback = _EVAL.set_eval_frame(None)
        return self

    @between_graphs
    def __exit__(self, *_: object) -> None:
        if self._loaded:
            _EVAL.set_eval_frame(self._callback)

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function with torch.compile as it was before the block."""
        if not self._loaded:
            return function(*args, **kwargs)
        return self._call_compiled(function, args, kwargs)

    @between_graphs
    def _call_compiled(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        _EVAL.set_eval_frame(self._callback)
        try:
            return function(*args, **kwargs)
        finally:
            _EVAL.set_eval_frame(None)


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor is a wrapper that a transform of ``torch.func`` made."""
    return _C._functorch.is_functorch_wrapped_tensor(tensor)


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` is running."""
    return _C._functorch.peek_interpreter_stack() is not None


def refuse_forward_mode() -> None:
    """Refuse forward-mode derivatives, which have no backward pass to prune.

    Raises:
        FailureError: one is being computed, by ``torch.func`` or ``torch.autograd.forward_ad``.
    """
    found = forward_ad._current_level >= 0
    if not found and in_transform():
        kinds = (level.key() for level in _C._functorch.get_interpreter_stack())
        found = any(kind == _C._functorch.TransformType.Jvp for kind in kinds)
    if found:
        raise FailureError(
            'prune_type="gradient" is about the backward pass, which derivatives in forward mode '
            "(jvp, jacfwd, forward_ad) do not have: use reverse mode (vjp, grad, jacrev)"
        )


def refuse_recording(*, scripting: bool = False) -> None:
    """Refuse to be recorded in a graph, which would use one draw for ever.

    ``torch.jit.script`` cannot be detected, so it says that it is ``scripting``.

    Raises:
        FailureError: one is being recorded, by ``torch.export`` or ``torch.jit.trace``.
    """
    if scripting or _C._is_tracing() or torch.compiler.is_exporting():
        raise FailureError(
            "a surrogate draws at every call, which a scripted, exported or traced graph does not: "
            "export surrogate.network, or one draw of it, which is "
            "secateurs.apply_masks(copy.deepcopy(surrogate.network), surrogate.masks)"
        )


def outside_transforms() -> AbstractContextManager[Any]:
    """For a ``with`` block, hide operations from ``torch.func``: their results are constants."""
    return temporarily_clear_interpreter_stack() if in_transform() else nullcontext()
