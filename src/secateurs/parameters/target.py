"""A parameter that competes for pruning, and its real values where it is quantised."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import torch
from torch import nn

from secateurs._tensors.quantization_scales import (
    further_name,
    scale_name,
    scale_steps,
    scaling_names,
    spread,
    unknown_name,
)
from secateurs.distributed.dtensor import local_of
from secateurs.distributed.process_group import ProcessGroup
from secateurs.distributed.shard import Shard, shard_of
from secateurs.errors import Advice, Argument, InvalidArgumentError
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
from secateurs.parameters.weight_matrix import WeightMatrix


@dataclass(unsafe_hash=True)  # not frozen: one is made for every parameter, four times as fast
class Target:
    """One parameter that competes for pruning.

    Attributes:
        name: its first qualified name in ``model.named_parameters()``.
        parameter: the ``nn.Parameter`` itself, pruned or not.
        places: every (module, attribute) that holds this parameter; tied weights have several.
        names: every qualified name, the first included; shared modules have several.
        group: the ranks that hold the model.
    """

    name: str
    parameter: nn.Parameter = field(compare=False)  # tensors compare element by element
    places: tuple[tuple[nn.Module, str], ...]
    names: tuple[str, ...]
    group: ProcessGroup = field(default_factory=ProcessGroup, compare=False, repr=False)

    @property
    def module(self) -> nn.Module:
        """The first module that holds the parameter."""
        return self.places[0][0]

    @property
    def attribute(self) -> str:
        """The parameter's name inside `module`."""
        return self.places[0][1]

    @cached_property
    def shard(self) -> Shard:
        """The part of the parameter that this rank holds.

        Raises:
            InvalidArgumentError: it is divided over ranks in a way that cannot be pruned.
        """
        return shard_of(self.parameter, self.name, self.group)

    @property
    def placement(self) -> Shard | None:
        """`shard` if the model is divided over ranks, else None."""
        return self.shard if self.group.is_sharded else None

    @property
    def is_dtensor(self) -> bool:
        """Whether the parameter is a DTensor; in a model that is divided, some may be ordinary."""
        return self.placement is not None and self.placement.mesh is not None

    @property
    def local(self) -> torch.Tensor:
        """The values of the parameter that this rank holds, as an ordinary detached tensor."""
        return local_of(self.parameter.detach())

    @property
    def original(self) -> Original | None:
        """The original values of the parameter while it is pruned, else None."""
        if len(self.places) == 1:
            return original_of(*self.places[0])
        kept = [original_of(module, attribute) for module, attribute in self.places]
        return valid_of([original for original in kept if original is not None])

    @property
    def weight(self) -> torch.Tensor:
        """The values to prune, detached.

        If the parameter is pruned now, its original values; if it was trained since, its current
        ones.
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
                f"{self.name} has no gradient to score by: ",
                Advice("run loss.backward() first, or exclude it, or use ", "exclude it, or use "),
                Argument("score", "magnitude"),
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
        """Whether it stacks the matrices of several experts in one tensor."""
        # A quick answer for most. Subclasses of Parameter may fail to say how many dimensions.
        if type(self.parameter) is nn.Parameter and self.parameter.dim() != 3:
            return False
        if not is_stack(self.module, self.attribute, self.parameter):
            return False
        shape = tuple(self.parameter.shape)
        named = any(experts_in(name, shape) is not None for name in self.names)
        return named or isinstance(self.module, Experts)

    @property
    def outputs_last(self) -> bool:
        """Whether the outputs are the last dimension: (in, out) or (experts, in, out)."""
        if self.is_stack:
            return stack_outputs_last(self.module, self.attribute)
        return self.attribute == "weight" and isinstance(self.module, Conv1D)

    @property
    def layout(self) -> WeightMatrix:
        """Which of its elements belong to one output."""
        if self.is_stack:
            return WeightMatrix(self.parameter.shape[0], self.outputs_last, stacked=True)
        groups = cast(int, self.module.groups) if self.is_convolution else 1
        return WeightMatrix(groups, self.is_transposed or self.outputs_last)


def scaled_weight(target: Target) -> torch.Tensor:
    """The weight times the scale that its module holds for it; the weight if there is no scale.

    Raises:
        InvalidArgumentError: the module holds a scale of an unknown kind, or the weight has a
            scale and is divided over ranks.
    """
    weight = target.weight
    module, attribute = target.module, target.attribute
    held = {**vars(module), **module._parameters, **module._buffers}
    beside = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    name, further = scale_name(attribute, beside), further_name(attribute, beside)
    if name is None:
        further = further or unknown_name(attribute, scaling_names(beside))
    if further is not None or (name is not None and target.placement is not None):
        raise InvalidArgumentError(
            f"{target.name} is quantised with {further or name} beside it, which is not applied "
            f"{'here' if further else 'over several ranks'}: dequantise it first, or write ",
            Argument("exclude", target.name),
        )
    if name is None:
        return weight
    scale, block = beside[name], getattr(module, "block_size", None)
    known = tuple(block) if isinstance(block, tuple | list) else None
    last = target.outputs_last
    steps = scale_steps(target.name, weight.shape, scale.shape, known, outputs_last=last)
    return weight.float() * spread(scale, weight.shape, steps).to(weight.device)
