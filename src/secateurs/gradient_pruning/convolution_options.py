"""The options of convolutions, as numbers for each dimension."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from secateurs.errors import InvalidArgumentError


def each_dimension(value: int | Sequence[int], dims: int) -> list[int]:
    """The value of each dimension; a single one is that of all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def padded(
    x: Tensor,
    padding: int | str | Sequence[int],
    kernel: Sequence[int],
    stride: list[int],
    dilation: list[int],
) -> tuple[Tensor, list[int]]:
    """The padding as one number for each dimension; ``x`` is padded if its two sides differ."""
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
