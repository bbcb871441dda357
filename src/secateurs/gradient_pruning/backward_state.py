"""What is kept in a module while its backward pass is pruned, beside its masks."""

from typing import Any

import torch
from torch import Tensor, nn

from secateurs.gradient_pruning.saved_weight import BackwardWeight, Scratch

_KEY = "_secateurs_backward"


class BackwardState:
    """What is known of one module while its backward pass is pruned.

    Args:
        masked_gradient: whether pruned elements of its weights get no gradient of their own.
        scratch: what its masked weights are written into.

    Attributes:
        needs_mode: by training mode, whether its own ``forward`` hands masked weights to functions.
        pruned: the weight and mask of a convolution or a linear layer in its last call.
    """

    def __init__(self, masked_gradient: bool, scratch: Scratch):
        self.masked_gradient, self.scratch = masked_gradient, scratch
        self.needs_mode: dict[bool, bool] = {}
        self.pruned: BackwardWeight | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pruned": None}  # a copy of the module has another weight


def state_of(module: nn.Module) -> BackwardState | None:
    """The state of a module, None without one."""
    return module.__dict__.get(_KEY)


def keep_state(module: nn.Module, masked_gradient: bool, scratch: Scratch) -> None:
    """Give a module a new state."""
    vars(module)[_KEY] = BackwardState(masked_gradient, scratch)


def forget_state(module: nn.Module) -> None:
    """Take the state of a module away."""
    vars(module).pop(_KEY, None)


def has_masked_gradient(module: nn.Module) -> bool:
    """Whether pruned elements of a module's weights get no gradient of their own."""
    state = state_of(module)
    return state is not None and state.masked_gradient


def weight_now(module: nn.Module, attribute: str) -> Tensor:
    """The weight that a module has now; unlike ``module.NAME``, no sign that it is used."""
    if torch.compiler.is_compiling():
        return getattr(module, attribute)
    parameters = vars(module).get("_parameters", {})
    return parameters[attribute] if attribute in parameters else getattr(module, attribute)
