"""Optimizers in which what is zero stays zero, so that a mask on the gradient is all it takes."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import optim

from secateurs.distributed.dtensor import local_of
from secateurs.training.held_weights import HeldWeight
from secateurs.training.optimizer_state import element_states

_Seen = list[tuple[weakref.ref[torch.Tensor], int]]


class ZeroStates:
    """Remembers the states of optimizers in which all pruned elements are zero."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def note(self, optimizer: optim.Optimizer, weights: Sequence[HeldWeight]) -> None:
        """Note that the pruned elements in the states of an optimizer are zero now."""
        if _adds_nothing(optimizer, weights):
            states = _states(optimizer, weights)
            self._seen[id(optimizer)] = [(weakref.ref(s), local_of(s)._version) for s in states]

    def stay(self, optimizer: optim.Optimizer, weights: Sequence[HeldWeight]) -> bool:
        """Whether a step leaves +0 in every state where weight and gradient are +0.

        That is so if nothing else wrote to the states since they were noted. A state that is made
        in the step begins as zeros.
        """
        if not _adds_nothing(optimizer, weights):
            return False
        states, seen = list(_states(optimizer, weights)), self._seen.get(id(optimizer), [])
        if not states:
            return True
        return len(states) == len(seen) and all(
            known() is state and local_of(state)._version == version
            for state, (known, version) in zip(states, seen, strict=True)
        )


def _states(optimizer: optim.Optimizer, weights: Sequence[HeldWeight]) -> Iterator[torch.Tensor]:
    for weight in weights:
        yield from element_states(optimizer, weight.target.parameter)


def _adds_nothing(optimizer: optim.Optimizer, weights: Sequence[HeldWeight]) -> bool:
    """Whether a step computes +0 from zeros in the state, the gradient and the weight.

    Adam and AdamW do, unless their options make a zero negative, or divide it by zero. Others keep
    a state that does not begin as zero, or so little that it costs no more to write the zeros.
    """
    if type(optimizer) not in (optim.Adam, optim.AdamW):
        return False
    here = [weight.here for weight in weights]
    if any(tensor.device.type != "cpu" for tensor in here):
        return False  # on a GPU masks are prepared once for the same tensors, as gradients are not
    smallest = max((torch.finfo(tensor.dtype).tiny for tensor in here), default=0.0)
    return all(_is_usual(group, smallest) for group in optimizer.param_groups)


def _is_usual(group: dict[str, Any], smallest: float) -> bool:
    if group["maximize"] or group["capturable"] or group["differentiable"]:
        return False
    if isinstance(group["lr"], torch.Tensor) or isinstance(group["eps"], torch.Tensor):
        return False
    # Where eps underflows, zero is divided by zero. NaN in the last product is no number below 1.
    return group["eps"] >= smallest and group["lr"] * group["weight_decay"] <= 1
