"""Tensors in the order of memory, in pieces that suit a device's caches."""

from collections.abc import Iterator

import torch

BLOCK = 1 << 16
"""Elements looked at together on a CPU: with the buffers beside them, a second-level cache full."""

_BLOCK_ELSEWHERE = 1 << 24


def storage_order(values: torch.Tensor) -> tuple[int, ...]:
    """The order of dimensions in which ``values`` lies in memory.

    For a permuted tensor (``channels_last``, a transpose) ``values.permute(order).reshape(-1)`` is
    a view where ``values.reshape(-1)`` would be a copy.
    """
    return tuple(sorted(range(values.dim()), key=values.stride, reverse=True))


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes ``order``."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def flattened(values: torch.Tensor) -> torch.Tensor:
    """Flatten in the order of memory: a view of every dense tensor."""
    if values.is_contiguous():
        return values.view(-1)
    return values.permute(storage_order(values)).reshape(-1)


def pieces(flat: torch.Tensor) -> Iterator[slice]:
    """Slices that cover a flat tensor, each of a size that suits the device."""
    size = BLOCK if flat.device.type == "cpu" else _BLOCK_ELSEWHERE
    return (slice(start, start + size) for start in range(0, flat.numel(), size))
