"""Flat views of tensors in the order of memory, and pieces that fit into a processor's caches."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

BLOCK = 1 << 19
"""Elements in one operation on a CPU.

Small enough for the caches; large enough that arithmetic takes most of the time, since each
operation releases Python's lock and waits for it afterwards.
"""

_DEVICE_BLOCK = 1 << 24
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_integers(values: torch.Tensor) -> torch.Tensor:
    """View a tensor's bits as integers, outside of autograd."""
    return values.detach().view(_INTEGERS[values.element_size()])


def storage_order(values: torch.Tensor) -> tuple[int, ...]:
    """The dimensions of ``values``, from the largest stride to the smallest.

    For a permuted tensor (``channels_last``, a transpose), ``values.permute(order).reshape(-1)`` is
    a view, whereas ``values.reshape(-1)`` would be a copy.
    """
    return tuple(sorted(range(values.dim()), key=values.stride, reverse=True))


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes ``order``."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def same_order(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors of one shape have the same layout in memory."""
    strides = zip(first.shape, first.stride(), second.stride(), strict=True)
    return all(a == b for size, a, b in strides if size > 1)


def flattened(values: torch.Tensor) -> torch.Tensor:
    """Flatten in the order of memory: a view of every dense tensor."""
    if values.is_contiguous():
        return values.view(-1)
    return values.permute(storage_order(values)).reshape(-1)


def gathered(whole: torch.Tensor, index: torch.Tensor, dimension: int) -> torch.Tensor:
    """The parts of a tensor at an index, in its own order of memory.

    torch's ``index_select`` gives them in the usual order, and takes six times as long where the
    channels are last; what is computed from them would then be converted back and forth.
    """
    if whole.is_contiguous():
        return whole.index_select(dimension, index)
    order = storage_order(whole)
    stored = whole.permute(order)
    if order[-1] == dimension:  # torch gathers columns of a matrix several times as fast
        rows = stored.reshape(stored.shape[:-1].numel(), stored.shape[-1])
        parts = rows.index_select(1, index).view(*stored.shape[:-1], len(index))
    else:
        parts = stored.index_select(order.index(dimension), index)
    return parts.permute(inverse(order))


def pieces(flat: torch.Tensor, block: int = BLOCK) -> Iterator[slice]:
    """Slices that cover a flat tensor, of ``block`` elements on a CPU, larger on other devices."""
    size = _piece(flat, block)
    return (slice(start, start + size) for start in range(0, flat.numel(), size))


def logical_pieces(
    *tensors: torch.Tensor, block: int = BLOCK
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Cut tensors of one shape into the same pieces, in the order of the flat index.

    Args:
        *tensors: any memory layout; the pieces are views.
        block: the elements of one piece if the tensors are on a CPU.

    Yields:
        One piece of each, of a size that suits the device.
    """
    first = tensors[0]
    size = _piece(first, block)
    if first.numel() <= size:
        yield tensors
    elif all(tensor.is_contiguous() for tensor in tensors):
        flats = [tensor.view(-1) for tensor in tensors]
        for piece in pieces(flats[0], block):
            yield tuple(flat[piece] for flat in flats)
    else:
        rows = max(size // first[0].numel(), 1)
        for split in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            inner = (piece[0] for piece in split) if rows == 1 else split
            yield from logical_pieces(*inner, block=block)


def side_by_side(like: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Make uninitialised tensors that are adjacent in memory.

    Args:
        like: tensors with the shapes, devices and memory order to make. Gaps and overlaps in
            their memory are not copied.
        dtype: bool or uint8.

    Returns:
        One tensor for each of ``like``; those on one device share one allocation.
    """
    totals: dict[torch.device, int] = {}
    for tensor in like:
        totals[tensor.device] = totals.get(tensor.device, 0) + tensor.numel()
    memory = {device: _empty(n, dtype, device) for device, n in totals.items()}
    made: list[torch.Tensor] = []
    begins = dict.fromkeys(totals, 0)
    for tensor in like:
        begin = begins[tensor.device]
        made.append(memory[tensor.device].as_strided(tensor.shape, _dense_strides(tensor), begin))
        begins[tensor.device] = begin + tensor.numel()
    return made


def joined(rows: Sequence[tuple[torch.Tensor, ...]]) -> list[tuple[torch.Tensor, ...]]:
    """Join flat tensors that are adjacent in memory.

    Args:
        rows: tuples of one-dimensional contiguous tensors; the tensors of a tuple are equally long.

    Returns:
        Fewer and longer rows with the same elements in the same order. A row is joined to the row
        before it if each of its tensors begins in memory where that row's tensor ends.
    """
    made: list[tuple[torch.Tensor, ...]] = []
    for row in rows:
        if not row[0].numel():
            continue
        if made and all(_follows(a, b) for a, b in zip(made[-1], row, strict=True)):
            length = made[-1][0].numel() + row[0].numel()
            made[-1] = tuple(flat.as_strided((length,), (1,)) for flat in made[-1])
        else:
            made.append(row)
    return made


def _empty(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.empty(count, dtype=dtype, device=device)
    # numpy asks for huge pages; the first access to ordinary pages costs more than filling them.
    return torch.from_numpy(np.empty(count, np.uint8)).view(dtype)


def _piece(tensor: torch.Tensor, block: int) -> int:
    return block if tensor.device.type == "cpu" else _DEVICE_BLOCK


def _dense_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides of a tensor of the same order of memory without gaps."""
    if tensor.is_contiguous():
        return tensor.stride()
    strides, step = [0] * tensor.dim(), 1
    for dimension in reversed(storage_order(tensor)):
        strides[dimension] = step
        step *= tensor.shape[dimension]
    return tuple(strides)


def _follows(first: torch.Tensor, second: torch.Tensor) -> bool:
    if (first.dtype, first.device) != (second.dtype, second.device):
        return False
    storages = first.untyped_storage().data_ptr(), second.untyped_storage().data_ptr()
    end = int(first.storage_offset()) + first.numel()
    return storages[0] == storages[1] and int(second.storage_offset()) == end
