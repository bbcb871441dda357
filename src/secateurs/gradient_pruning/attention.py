"""Torch's own attention function, except that its weights may be masked in the backward pass."""

import types
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from secateurs.gradient_pruning.functional import linear
from secateurs.gradient_pruning.masked_weight import Dual


def _dual_linear(x: Tensor, weight: Tensor | Dual, bias: Tensor | None = None) -> Tensor:
    if not isinstance(weight, Dual):
        return F.linear(x, weight, bias)
    values, keep, masked_gradient = weight
    return linear(x, values, keep, bias, masked_gradient=masked_gradient)


def _with_globals(function: Any, names: dict[str, Any]) -> Callable[..., Any]:
    copy = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _dual_attention() -> Callable[..., Any]:
    """Torch's own attention function, except that ``linear`` accepts a `Dual`.

    It runs the code of the installed torch, so the outputs are the same bit for bit; only the
    global name ``linear`` is another function, in it and in its two helpers.
    """
    names = dict(vars(F))
    names["linear"] = _dual_linear
    # The function itself too: under another function mode it calls itself by name.
    for name in ("_in_projection_packed", "_in_projection", "multi_head_attention_forward"):
        names[name] = _with_globals(getattr(F, name), names)
    return names["multi_head_attention_forward"]


# Built on import, since torch.compile cannot build functions in a call that it traces.
attention = _dual_attention()
