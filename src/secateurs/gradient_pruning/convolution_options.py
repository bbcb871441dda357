"""The options of convolutions, as numbers for each dimension."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from secateurs.errors import InvalidArgumentError


def each_dimension(value: int | Sequence[int], dims: int) -> list[int]:
    """A value of each dimension, of which one stands for all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def padded(
    x: Tensor,
    padding: int | str | Sequence[int],
    kernel: Sequence[int],
    stride: list[int],
    dilation: list[int],
) -> tuple[Tensor, list[int]]:
    """Turn ``padding`` into one number for each dimension; pad ``x`` if its sides differ."""
    if not isinstance(padding, str):
        return x, each_dimension(padding, len(kernel))
    if padding == "valid":
        return x, [0] * len(kernel)
    if padding != "same" or max(stride) > 1:  # torch refuses both
        raise InvalidArgumentError(
            f"padding={padding!r} with stride={stride}: write 'valid', 'same' with stride 1, "
            "or numbers"
        )
    totals = [d * (size - 1) for d, size in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in totals):
        x = F.pad(x, [n for total in reversed(totals) for n in (0, total % 2)])
    return x, [total // 2 for total in totals]
