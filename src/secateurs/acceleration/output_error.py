"""How far an output is from the dense one."""

from typing import Any

import torch
from torch import Tensor

from secateurs.acceleration.observed_calls import tensors_in


def is_close(expected: Any, output: Any, tolerance: float) -> bool:
    """Whether all tensors in an output are as expected, relative to the largest value of each."""
    ones, others = list(tensors_in(expected)), list(tensors_in(output))
    return len(ones) == len(others) and all(
        _error(one, other) <= _allowed(one, tolerance)
        for one, other in zip(ones, others, strict=True)
    )


def _allowed(tensor: Tensor, tolerance: float) -> float:
    if not tensor.is_floating_point():
        return tolerance
    return max(tolerance, 2 * torch.finfo(tensor.dtype).eps)


def _error(expected: Tensor, output: Tensor) -> float:
    """The largest difference by the largest value; infinite if the tensors cannot be compared."""
    if not (_is_dense(expected) and _is_dense(output)):
        return float("inf")
    if expected.shape != output.shape or expected.dtype != output.dtype:
        return float("inf")
    if expected.numel() == 0 or torch.equal(expected, output):
        return 0.0
    wide = torch.promote_types(expected.dtype, torch.float64)  # complex numbers stay complex
    difference = (output.to(wide) - expected.to(wide)).abs().max()
    largest = expected.to(wide).abs().max()
    return float(difference / largest) if largest > 0 else float("inf")


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested
