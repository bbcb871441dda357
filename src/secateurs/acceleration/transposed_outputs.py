"""Sparse linear layers that leave their output transposed in memory.

A sparse matrix times the inputs gives the outputs transposed, and takes its inputs transposed. Of
two such layers with an activation in between, the first need not transpose its output, nor the
second its input. Only the timing of a whole model shows whether that pays, and only running it
whether what is in between takes such a tensor.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor

from secateurs.acceleration.layer_timing import LayerTiming
from secateurs.acceleration.sparse_kernels import Kernel, SparseLinear

TRANSPOSED = "csr, output transposed"
"""The name of a kernel that leaves its output transposed."""

NamedShape = tuple[str, tuple[int, ...]]
"""The name of a layer, and the shape of its input."""


class Noting(Kernel):
    """A kernel that runs another one, and notes whether its input is transposed in memory.

    Args:
        kernel: the other one.

    Attributes:
        got_transposed: whether the last input did.
    """

    def __init__(self, kernel: Kernel):
        self._kernel, self.got_transposed = kernel, False

    def __call__(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """As the other kernel."""
        rows = values.flatten(0, -2)
        self.got_transposed = rows.t().is_contiguous() and not rows.is_contiguous()
        return self._kernel(values, bias)


def transposed(kernel: SparseLinear) -> SparseLinear:
    """The same kernel, but for its output, which it leaves transposed."""
    other = copy.copy(kernel)
    other.block, other.contiguous = 0, False
    return other


def consecutive_pairs(
    timings: Sequence[LayerTiming], kernels: Mapping[NamedShape, Kernel | None]
) -> list[tuple[NamedShape, NamedShape]]:
    """Pairs of sparse linear layers where the first's output has the shape of the second's input.

    Args:
        timings: the layers that an example calls, in order.
        kernels: what computes them; None for dense.
    """
    found: list[tuple[NamedShape, NamedShape]] = []
    for one, following in pairwise(timings):
        pair = (one.name, one.shape), (following.name, following.shape)
        first, second = map(kernels.get, pair)
        if not isinstance(first, SparseLinear) or not isinstance(second, SparseLinear):
            continue
        same = (*one.shape[:-1], first.outputs) == following.shape
        if same and prod(one.shape[:-1]) > 1:
            found.append(pair)
    return found
