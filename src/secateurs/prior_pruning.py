"""The pruning that a model is under, noted so that it can be brought back."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from secateurs._io.text import listed
from secateurs.errors import LostTrainingWarning
from secateurs.gradient_pruning.modules import gradient_masks, install_gradient_masks
from secateurs.originals.comparison import differs
from secateurs.originals.module_state import (
    fits,
    keep_original,
    original_of,
    originals_of,
    parameter_of,
)
from secateurs.originals.original import Original
from secateurs.originals.restore_weights import copy_bits, copy_original


@dataclass(frozen=True)
class _NotedWeight:
    """One weight that is pruned.

    Attributes:
        name: its qualified name.
        module: what holds it.
        attribute: its name there.
        original: what is kept of it.
        values: what its Parameter holds; None if that was not wanted.
        trained: whether it was trained since it was pruned.
    """

    name: str
    module: nn.Module
    attribute: str
    original: Original
    values: torch.Tensor | None
    trained: bool

    @property
    def is_in_place(self) -> bool:
        """Whether the module still has this Parameter."""
        return parameter_of(self.module, self.attribute) is self.original.parameter


@dataclass(frozen=True)
class PriorPruning:
    """The pruning that a model was under at one moment.

    Attributes:
        model: the network.
        weights: those that were pruned.
        masks: those on the backward pass: the module, the parameter's name in it, and the mask.
    """

    model: nn.Module
    weights: list[_NotedWeight]
    masks: list[tuple[nn.Module, str, torch.Tensor]]

    @classmethod
    def of(cls, model: nn.Module, *, values: bool = True) -> "PriorPruning":
        """Note the pruning that a model is under.

        Args:
            model: the network.
            values: whether it is to be brought back, for which the pruned values are copied.
        """
        weights = [
            _NotedWeight(
                name,
                module,
                attribute,
                original.moved(original.values, original.parameter),
                original.parameter.detach().clone() if values else None,
                values and original.trained,
            )
            for name, module, attribute, original in originals_of(model.named_modules())
            if original_of(module, attribute) is original
        ]
        return cls(model, weights, gradient_masks(model.modules()))

    def end(self) -> list[str]:
        """Put the original values back, of weights that are still pruned.

        Returns:
            The names of those that were trained meanwhile.
        """
        lost: dict[int, str] = {}
        for weight in self.weights:
            kept = original_of(weight.module, weight.attribute)
            if kept is None:
                continue
            if copy_original(weight.module, weight.attribute, weight.original.values):
                lost.setdefault(id(kept.parameter), weight.name)
        return list(lost.values())

    def bring_back(self) -> list[str]:
        """Put a model that is not pruned under this pruning again.

        A new Parameter in the place of one that was noted is left as it is.

        Returns:
            The names of weights that had been trained meanwhile.
        """
        lost: dict[int, str] = {}
        for weight in self.weights:
            if weight.values is None or not weight.is_in_place:
                continue
            parameter, original = weight.original.parameter, weight.original.values
            dense = weight.values if weight.trained else original
            if differs(parameter, dense) and differs(parameter, weight.values):
                lost.setdefault(id(parameter), weight.name)
            copy_bits(parameter, weight.values)
            original = original.to(parameter.device, parameter.dtype)
            moved = weight.original.moved(original, parameter)
            keep_original(weight.module, weight.attribute, moved)
        fitting = [m for m in self.masks if fits(m[2], getattr(m[0], m[1], None))]
        install_gradient_masks(list(self.model.modules()), fitting)
        return list(lost.values())


def warn_of_loss(what: str, names: list[str], *, frames: int) -> None:
    """Warn that learned values are gone, if there are names; the caller is ``frames`` away."""
    if not names:
        return
    warnings.warn(
        f"{what} puts back the values that {listed(names)} had before pruning, though training or "
        "loading changed them since, which is lost now: to keep it, call make_permanent(model) "
        "first",
        LostTrainingWarning,
        stacklevel=frames,
    )
