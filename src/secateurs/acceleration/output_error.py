"""How far an output is from the dense one."""

from typing import Any

import torch
from torch import Tensor

from secateurs.acceleration.observed_calls import tensors_in


def is_close(expected: Any, output: Any, tolerance: float) -> bool:
    """Whether all tensors in an output are as expected, relative to the largest value of each."""
    pairs = zip(tensors_in(expected), tensors_in(output), strict=True)
    return all(_error(one, other) <= _allowed(one, tolerance) for one, other in pairs)


def _allowed(tensor: Tensor, tolerance: float) -> float:
    if not tensor.is_floating_point():
        return tolerance
    return max(tolerance, 2 * torch.finfo(tensor.dtype).eps)


def _error(expected: Tensor, output: Tensor) -> float:
    """The largest difference by the largest value; infinite if shapes or dtypes differ."""
    if expected.shape != output.shape or expected.dtype != output.dtype:
        return float("inf")
    if expected.numel() == 0 or torch.equal(expected, output):
        return 0.0
    wide = expected.double()
    largest = wide.abs().max()
    return float((output.double() - wide).abs().max() / largest) if largest > 0 else float("inf")
