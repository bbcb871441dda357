"""Sparse linear layers that hand on their output as it lies in memory, transposed.

A sparse matrix times the inputs gives the outputs transposed, and takes its inputs transposed. Of
two such layers with an activation in between, the first need not turn its output, nor the second
its input. Only the timing of a whole model shows whether that pays, and only running it whether
what stands in between takes such a tensor.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

from secateurs.acceleration.layer_timing import LayerTiming
from secateurs.acceleration.sparse_kernels import Kernel, SparseLinear

TRANSPOSED = "csr, output transposed"
"""The name of this way to compute a linear layer."""

Place = tuple[str, tuple[int, ...]]
"""The name of a layer, and the shape of its input."""


def transposed(kernel: Kernel) -> SparseLinear | None:
    """The same kernel with its output left transposed; None for other kernels."""
    if not isinstance(kernel, SparseLinear):
        return None
    other = copy.copy(kernel)
    other.block, other.turned = 0, False
    return other


def handing_on(
    timings: Sequence[LayerTiming], kernels: Mapping[Place, Kernel | None]
) -> list[LayerTiming]:
    """The sparse linear layers whose output has the shape of the next one's input.

    Args:
        timings: the layers that an example calls, in order.
        kernels: what computes them; None for dense.
    """
    found: list[LayerTiming] = []
    for one, following in pairwise(timings):
        first, second = (kernels.get((t.name, t.shape)) for t in (one, following))
        if not isinstance(first, SparseLinear) or not isinstance(second, SparseLinear):
            continue
        same = (*one.shape[:-1], first.outputs) == following.shape
        if same and prod(one.shape[:-1]) > 1:
            found.append(one)
    return found
