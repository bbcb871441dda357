"""Compares all values of a parameter with its original values times a mask."""

import numpy as np
import torch

from secateurs._tensors.blocks import Array
from secateurs._tensors.memory_order import as_integers, flattened, logical_pieces, same_order
from secateurs.distributed.dtensor import local_of

_BLOCK_BYTES = 1 << 18
# These formats have no -0: its bits are their only NaN.
_ONE_ZERO = (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)


@torch.no_grad()
def differs(
    parameter: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Whether a parameter differs from its original values times a mask.

    It differs if a value is neither zero nor the original one; or if a kept value became zero
    while all masked values are zero. If a masked value is not zero, the parameter was pruned by
    another mask, and zeros say nothing.

    Args:
        parameter: of any dtype.
        values: the original values, of the same shape.
        mask: bool, True is kept; broadcasts to this rank's part of the parameter. Without a mask,
            every zero counts as pruned.

    Returns:
        A bool tensor on the parameter's device, without waiting for the device.
    """
    current, original = local_of(parameter.detach()), local_of(values.detach())
    if current.is_meta:  # it has no values
        return torch.zeros((), dtype=torch.bool, device="cpu")
    now, then = as_integers(current), as_integers(original.to(current.device, current.dtype))
    if current.dtype in _ONE_ZERO:
        now, then = now.to(torch.int16), then.to(torch.int16)  # doubled, only 0 is 0
    keep = None if mask is None else mask.to(current.device)
    if current.is_cpu:
        return torch.tensor(_differs_on_cpu(now, then, keep), device="cpu")
    return _differs_on_device(now, then, keep)


def _differs_on_device(
    now: torch.Tensor, then: torch.Tensor, keep: torch.Tensor | None
) -> torch.Tensor:
    # Doubling the bits drops the sign bit, so +0 and -0 become 0.
    other, zeroed, unmasked = torch.zeros(3, dtype=torch.bool, device=now.device)
    if keep is None:
        for now_part, then_part in logical_pieces(now, then):
            other = other | ((now_part != then_part) & (now_part + now_part != 0)).any()
        return other
    for now_part, then_part, kept in logical_pieces(now, then, keep.expand_as(now)):
        zero = now_part + now_part == 0
        other = other | ((now_part != then_part) & ~zero).any()
        zeroed = zeroed | (zero & kept & (then_part + then_part != 0)).any()
        unmasked = unmasked | ~(zero | kept).all()
    return other | (zeroed & ~unmasked)


def _differs_on_cpu(now: torch.Tensor, then: torch.Tensor, keep: torch.Tensor | None) -> bool:
    now_bits, then_bits = (_bits(one, now) for one in (now, then))
    kept = None if keep is None else _flat_like(keep, now).numpy()
    size = min(max(_BLOCK_BYTES // now_bits.itemsize, 1), len(now_bits))
    # Every block uses the same memory: allocating it would take longer than the comparison.
    unequal, nonzero = (np.empty(size, bool) for _ in range(2))
    zeroed = False
    for start in range(0, len(now_bits), max(size, 1)):
        indices = slice(start, start + size)
        block, before = now_bits[indices], then_bits[indices]
        other, left = unequal[: len(block)], nonzero[: len(block)]
        np.not_equal(block, before, out=other)
        np.not_equal(block, 0, out=left)
        if kept is not None:
            np.logical_or(left, kept[indices], out=left)
        if not np.logical_and(other, left, out=left).any():
            continue  # the usual case, decided quickly; only the code below handles -0
        zero = block + block == 0  # doubling the bits drops the sign bit
        if (other & ~zero).any():
            return True
        if kept is not None:
            zeroed = zeroed or bool((zero & kept[indices] & (before + before != 0)).any())
    if not zeroed or kept is None:
        return False
    rest = now_bits[~kept]
    return not (rest + rest).any()


def _bits(values: torch.Tensor, like: torch.Tensor) -> Array:
    flat = _flat_like(values, like).numpy()
    return flat.view(np.dtype(f"u{flat.itemsize}"))


def _flat_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Broadcast values to the shape of ``like``, and flatten them in its order of memory."""
    if values.shape != like.shape or not same_order(values, like):
        values = torch.empty_like(like, dtype=values.dtype).copy_(values)
    return flattened(values)
