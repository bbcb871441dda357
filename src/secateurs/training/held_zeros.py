"""The zeros of held weights, written into weights, gradients and the states of optimizers."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import optim

from secateurs.distributed.dtensor import local_of
from secateurs.training.held_weights import HeldWeight, count_writes, flat_mask
from secateurs.training.optimizer_state import element_states, flat_states, parameter_ids
from secateurs.training.zero_states import ZeroStates
from secateurs.training.zeroing import Masked, Zeroing

_NONE: AbstractSet[int] = frozenset()


class HeldZeros:
    """Writes the zeros of held weights.

    Args:
        weights: the parameters with their masks.
    """

    def __init__(self, weights: Sequence[HeldWeight]):
        self._weights = weights
        self._zeroing: dict[int, Zeroing] = {}
        self._states = ZeroStates()

    @torch.no_grad()
    def write(self, optimizer: optim.Optimizer) -> None:
        """Set what is pruned to +0 in the weights that an optimizer steps, and in its states."""
        weights = self._stepped_by(optimizer)
        rows: list[Masked] = []
        for weight in weights:
            states = element_states(optimizer, weight.target.parameter)
            rows.append(weight.row([weight.here, *(local_of(s.detach()) for s in states)]))
        vectors = flat_states(optimizer)
        if vectors:
            rows.append(Masked(flat_mask(self._weights, optimizer), vectors))
        self._zeroing.setdefault(id(optimizer), Zeroing())(rows)
        count_writes(weights)
        self._states.note(optimizer, weights)

    def stay(self, optimizer: optim.Optimizer) -> bool:
        """Whether a step leaves all as zero, if weights and gradients are masked before it."""
        return self._states.stay(optimizer, self._stepped_by(optimizer))

    def stayed(self, optimizer: optim.Optimizer) -> None:
        """Note that such a step was taken."""
        self._states.note(optimizer, self._stepped_by(optimizer))

    @torch.no_grad()
    def mask(self, gradients: AbstractSet[int] = _NONE, weights: AbstractSet[int] = _NONE) -> None:
        """Set what is pruned to +0 in gradients and weights.

        Args:
            gradients: the ids of the parameters whose gradients are masked.
            weights: the ids of those that are masked themselves.
        """
        rows: list[Masked] = []
        written: list[HeldWeight] = []
        for weight in self._weights:
            parameter, tensors = weight.target.parameter, list[torch.Tensor]()
            grad = parameter.grad
            if id(parameter) in gradients and grad is not None and not grad.is_sparse:
                tensors.append(local_of(grad.detach()))
            if id(parameter) in weights and weight.some_pruned:
                tensors.append(weight.here)
                written.append(weight)
            rows.append(weight.row(tensors))
        Zeroing()(rows)
        count_writes(written)

    def mask_all_gradients(self) -> None:
        """Set what is pruned to +0 in the gradients of all held weights."""
        self.mask({id(weight.target.parameter) for weight in self._weights})

    def _stepped_by(self, optimizer: optim.Optimizer) -> list[HeldWeight]:
        ids = parameter_ids(optimizer)
        return [w for w in self._weights if w.some_pruned and id(w.target.parameter) in ids]
