"""Pruned elements set to +0 in place, about as fast as memory is read and written."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from secateurs._tensors import memory_order
from secateurs._tensors.blocks import Array, in_threads, threads_for
from secateurs._tensors.memory_order import as_integers, same_order, storage_order

Masked = tuple[torch.Tensor, Sequence[torch.Tensor]]
"""A mask, True where a value is kept, and tensors of its shape, of any dtype and memory order."""


class Zeroing:
    """Writes +0 where masks say so: bit-exact for every dtype, also over NaN, infinity and -0.

    The bits are multiplied as integers. How the tensors are laid out in memory is examined once,
    and again when the address of one has changed: for a few hundred tensors this takes as long as
    a step of an optimizer on a GPU.
    """

    def __init__(self) -> None:
        self._known: list[Any] = []
        self._on_cpu: list[tuple[Array, list[Array]]] = []
        self._strided: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._on_devices: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    @torch.no_grad()
    def __call__(self, rows: Sequence[Masked]) -> None:
        """Write the zeros."""
        rows = [part for row in rows for part in _stored(*row)]
        known = [
            (id(keep), [(t.data_ptr(), t.stride(), t.dtype) for t in tensors])
            for keep, tensors in rows
        ]
        if known != self._known:
            self._prepare(rows)
            self._known = known
        _multiply_blocks(self._on_cpu)
        for tensor, keep in self._strided:
            tensor.mul_(keep)
        for tensors, factors in self._on_devices:
            torch._foreach_mul_(tensors, factors)  # pyright: ignore[reportPrivateImportUsage]

    def _prepare(self, rows: Sequence[Masked]) -> None:
        # The rows themselves are kept, so that no other tensor can get their addresses.
        self._rows = list(rows)
        self._on_cpu, self._strided = [], []
        together: dict[Any, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for keep, tensors in rows:
            factors: dict[torch.dtype, torch.Tensor] = {}
            flats: list[tuple[Array, Array]] = []
            for tensor in (t for t in tensors if not t.is_meta and t.numel()):
                values = as_integers(tensor)
                if values.device.type == "cpu":
                    flat = _flat(values, keep)
                    if flat is None:
                        self._strided.append((values, keep))
                    else:
                        flats.append(flat)
                    continue
                if values.dtype not in factors:
                    factors[values.dtype] = keep.to(values.device, values.dtype)
                group = together.setdefault((values.device, values.dtype), ([], []))
                group[0].append(values)
                group[1].append(factors[values.dtype])
            self._on_cpu += _by_mask(flats)
        self._on_devices = list(together.values())


def _stored(keep: torch.Tensor, tensors: Sequence[torch.Tensor]) -> Iterator[Masked]:
    """The tensors with their mask; of sparse ones the values that are stored."""
    yield keep, [tensor for tensor in tensors if not tensor.is_sparse]
    for tensor in tensors:
        if tensor.is_sparse:
            yield keep[tuple(tensor._indices())], [tensor._values()]


def _flat(values: torch.Tensor, keep: torch.Tensor) -> tuple[Array, Array] | None:
    """A tensor and its mask as flat arrays in the tensor's order of memory, None if it has gaps."""
    if not values.is_contiguous():
        order = storage_order(values)
        values, keep = values.permute(order), keep.permute(order)
    if not values.is_contiguous():
        return None
    return keep.cpu().contiguous().numpy().reshape(-1), values.numpy().reshape(-1)


def _by_mask(flats: list[tuple[Array, Array]]) -> list[tuple[Array, list[Array]]]:
    """Put arrays together that have one mask and one dtype, so that the mask is read once."""
    found: dict[Any, tuple[Array, list[Array]]] = {}
    for keep, values in flats:
        key = keep.__array_interface__["data"][0], values.dtype
        found.setdefault(key, (keep, []))[1].append(values)
    return list(found.values())


def _multiply_blocks(rows: Sequence[tuple[Array, list[Array]]]) -> None:
    blocks = [
        (keep, values, slice(start, start + memory_order.BLOCK))
        for keep, values in rows
        for start in range(0, len(keep), memory_order.BLOCK)
    ]
    count = threads_for(sum(len(keep) * len(values) for keep, values in rows))
    in_threads(_multiply, [blocks[first::count] for first in range(count)])


def _multiply(blocks: Sequence[tuple[Array, list[Array], slice]]) -> None:
    # A mask is converted once for all its tensors, into memory that remains in the caches.
    factors: dict[Any, Array] = {}
    for keep, values, block in blocks:
        kept, dtype = keep[block], values[0].dtype
        if dtype not in factors:
            factors[dtype] = np.empty(memory_order.BLOCK, dtype)
        factor = factors[dtype][: len(kept)]
        np.copyto(factor, kept)
        for array in values:
            np.multiply(array[block], factor, out=array[block])


def same_shape_mask(keep: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask that broadcasts to a tensor, written out in its shape, device and order of memory."""
    keep = keep.to(like.device)
    if keep.shape == like.shape and same_order(keep, like):
        return keep
    return torch.empty_like(like, dtype=torch.bool).copy_(keep.expand(like.shape))
