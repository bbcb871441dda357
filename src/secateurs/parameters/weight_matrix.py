"""A layer's weight as matrices: for each group its outputs, each with all of its inputs."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class WeightMatrix:
    """How the elements of a weight are those of matrices of (outputs, inputs), one for each group.

    The inputs of an output are in the order of the weight's flat index: of a convolution first the
    channel, then the position in the kernel. So the matrix of an ungrouped convolution is
    ``weight.flatten(1)``.

    Attributes:
        groups: the groups of a convolution, or the experts of a stack; else 1.
        inputs_first: whether the inputs come before the outputs: transposed convolutions,
            ``Conv1D``, some experts.
        stacked: whether the first dimension is that of experts.
    """

    groups: int = 1
    inputs_first: bool = False
    stacked: bool = False

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight, or anything of its shape, as (groups, outputs, inputs)."""
        if not self.inputs_first:
            outputs = weight.shape[1] if self.stacked else weight.shape[0] // self.groups
            inputs = math.prod(weight.shape[1 + self.stacked :])
            return weight.reshape(self.groups, outputs, inputs)
        return weight.reshape(self._split(tuple(weight.shape))).transpose(1, 2).flatten(2)

    def weight(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The weight of a shape that has this `matrix`, or these `rows`."""
        if not self.inputs_first:
            return matrix.reshape(shape)
        groups, inside, outputs, rest = self._split(shape)
        return matrix.reshape(groups, outputs, inside, rest).transpose(1, 2).reshape(shape)

    def inputs(self, shape: tuple[int, ...]) -> int:
        """How many inputs each output has of a weight of this shape."""
        if not self.inputs_first:
            return math.prod(shape[1 + self.stacked :])
        _, inside, _, rest = self._split(shape)
        return inside * rest

    def rows(self, weight: Tensor) -> Tensor:
        """`matrix` without its groups, (outputs, inputs); also of some of the outputs."""
        inputs = self.inputs(tuple(weight.shape))
        whole = self.matrix(weight) if self.inputs_first else weight
        return whole.reshape(weight.numel() // max(inputs, 1), inputs)

    def _split(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """(groups, inputs, outputs, positions in the kernel)."""
        if self.stacked:
            return (*shape[:3], 1)  # type: ignore[return-value]
        return self.groups, shape[0] // self.groups, shape[1], math.prod(shape[2:])
