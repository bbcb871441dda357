"""Whether a parameter is still its original values times a mask, by a look at all its values."""

import numpy as np
import torch

from secateurs._tensors.blocks import Array
from secateurs._tensors.memory_order import as_integers, flattened, logical_pieces, same_order
from secateurs.distributed.dtensor import local_of

_BLOCK_BYTES = 1 << 18


@torch.no_grad()
def differs(
    parameter: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Whether a parameter holds anything but these values times a mask.

    It does where a value is neither zero nor the original one. It does also where a value that is
    kept is zero, if all that are not kept are zero: if they are not, the mask is not the one that
    the parameter was pruned by.

    Args:
        parameter: of any dtype.
        values: the original ones, of its shape.
        mask: bool, True is kept; broadcasts to the part of the parameter that lies here. Without
            one, zeros are taken for pruned values.

    Returns:
        A bool on the device of the parameter, which is not waited for.
    """
    here, there = local_of(parameter.detach()), local_of(values.detach())
    if here.is_meta:  # it has no values
        return torch.zeros((), dtype=torch.bool)
    now, then = as_integers(here), as_integers(there.to(here.device, here.dtype))
    keep = None if mask is None else mask.to(here.device)
    if here.is_cpu:
        return torch.tensor(_differs_on_cpu(now, then, keep))
    return _differs_on_device(now, then, keep)


def _differs_on_device(
    now: torch.Tensor, then: torch.Tensor, keep: torch.Tensor | None
) -> torch.Tensor:
    # Twice the bits of a zero is zero, whatever its sign.
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
    # The same memory for each block: to have it from the system afresh would take longest.
    unlike, nonzero = (np.empty(size, bool) for _ in range(2))
    zeroed = False
    for start in range(0, len(now_bits), max(size, 1)):
        places = slice(start, start + size)
        block, before = now_bits[places], then_bits[places]
        other, left = unlike[: len(block)], nonzero[: len(block)]
        np.not_equal(block, before, out=other)
        np.not_equal(block, 0, out=left)
        if kept is not None:
            np.logical_or(left, kept[places], out=left)
        if not np.logical_and(other, left, out=left).any():
            continue  # the usual case, as quickly as can be; the rest knows of negative zeros
        zero = block + block == 0  # twice the bits of a zero is zero, whatever its sign
        if (other & ~zero).any():
            return True
        if kept is not None:
            zeroed = zeroed or bool((zero & kept[places] & (before + before != 0)).any())
    if not zeroed or kept is None:
        return False
    rest = now_bits[~kept]
    return not (rest + rest).any()


def _bits(values: torch.Tensor, like: torch.Tensor) -> Array:
    flat = _flat_like(values, like).numpy()
    return flat.view(np.dtype(f"u{flat.itemsize}"))


def _flat_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Flattened in the order in which ``like`` lies in memory, after broadcasting to its shape."""
    if values.shape != like.shape or not same_order(values, like):
        values = torch.empty_like(like, dtype=values.dtype).copy_(values)
    return flattened(values)
