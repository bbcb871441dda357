"""A parameter that competes for pruning, and all that a model has."""

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from secateurs.distributed.dtensor import settle
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.originals.module_state import original_of
from secateurs.originals.original import Original, valid_of
from secateurs.parameters.layer_inputs import LayerInputs, attached_inputs
from secateurs.parameters.layer_kinds import (
    KINDS,
    TRANSPOSED,
    Conv1D,
    Experts,
    is_stack,
    stack_outputs_last,
)
from secateurs.parameters.layer_names import experts_in


@dataclass(frozen=True)
class Target:
    """One parameter that competes for pruning.

    Attributes:
        name: its first qualified name in ``model.named_parameters()``.
        parameter: the ``nn.Parameter`` itself, pruned or not.
        places: every (module, attribute) that holds this parameter; tied weights have several.
        names: every qualified name, the first included; shared modules have several.
    """

    name: str
    parameter: nn.Parameter = field(compare=False)  # the places say it; tensors have no truth value
    places: tuple[tuple[nn.Module, str], ...]
    names: tuple[str, ...]

    @property
    def module(self) -> nn.Module:
        """The first module that holds the parameter."""
        return self.places[0][0]

    @property
    def attribute(self) -> str:
        """The parameter's name inside `module`."""
        return self.places[0][1]

    @property
    def original(self) -> Original | None:
        """What is kept of this Parameter while it is pruned, else None."""
        kept = [original_of(module, attribute) for module, attribute in self.places]
        return valid_of([original for original in kept if original is not None])

    @property
    def weight(self) -> torch.Tensor:
        """The values to prune, detached.

        Those from before pruning if it is pruned now; if it was trained since, those it has.
        """
        original = self.original
        if original is None or original.trained:
            return self.parameter.detach()
        return original.beside.detach()

    @property
    def grad(self) -> torch.Tensor:
        """The accumulated gradient, made dense if it is sparse.

        Raises:
            InvalidArgumentError: there is none yet.
        """
        grad = self.parameter.grad
        if grad is None:
            raise InvalidArgumentError(
                f"{self.name} has no gradient to score by: run loss.backward() first, "
                "or exclude it, or use score='magnitude'"
            )
        return grad.to_dense() if grad.is_sparse else grad

    @property
    def inputs(self) -> LayerInputs:
        """What goes into the layer, while `secateurs.repair.observed_inputs` shows it.

        Raises:
            InvalidArgumentError: it is not known.
        """
        found = [attached_inputs(*place) for place in self.places]
        known = next((inputs for inputs in found if inputs is not None), None)
        if known is None:
            raise InvalidArgumentError(
                f"what goes into the layer of {self.name} is not known: score inside of "
                "`with secateurs.repair.observed_inputs(model, images):`, or exclude it, or use ",
                Argument("score", "magnitude"),
            )
        return known

    @property
    def is_convolution(self) -> bool:
        """Whether it is the weight of a convolution, transposed or not."""
        return self.attribute == "weight" and isinstance(self.module, KINDS["conv"])

    @property
    def is_transposed(self) -> bool:
        """Whether it is the weight of a transposed convolution: (in, out / groups, ...)."""
        return self.attribute == "weight" and isinstance(self.module, TRANSPOSED)

    @property
    def is_stack(self) -> bool:
        """Whether it holds the matrices of several experts, one behind the other."""
        if not is_stack(self.module, self.attribute, self.parameter):
            return False
        shape = tuple(self.parameter.shape)
        named = any(experts_in(name, shape) is not None for name in self.names)
        return named or isinstance(self.module, Experts)

    @property
    def outputs_last(self) -> bool:
        """Whether its last dimension is that of the outputs: (in, out) or (experts, in, out)."""
        if self.is_stack:
            return stack_outputs_last(self.module, self.attribute)
        return self.attribute == "weight" and isinstance(self.module, Conv1D)


def all_parameters(model: nn.Module) -> dict[str, Target]:
    """Every Parameter once, under its first name, with all the places that hold it."""
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    settle(model)
    found: dict[int, Target] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is None:
                continue
            place, name = (module, attribute), f"{prefix}.{attribute}" if prefix else attribute
            known = found.get(id(parameter))
            if known is None:
                found[id(parameter)] = Target(name, parameter, (place,), (name,))
                continue
            places = known.places if place in known.places else (*known.places, place)
            found[id(parameter)] = replace(known, places=places, names=(*known.names, name))
    return {target.name: target for target in found.values()}
