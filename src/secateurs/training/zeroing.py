"""Pruned elements set to +0 in place, about as fast as memory is read and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from secateurs._tensors.memory_order import as_integers, same_order


@dataclass(frozen=True)
class Masked:
    """A mask, and the tensors of its shape that it prunes.

    Attributes:
        keep: bool, True where a value is kept.
        tensors: of any dtype and order of memory.
    """

    keep: torch.Tensor
    tensors: Sequence[torch.Tensor]


class Zeroing:
    """Writes +0 where masks say so: bit-exact for every dtype, also over NaN, infinity and -0.

    The bits are multiplied as integers, those of all tensors on a device at once. Views and factors
    are made once, and again when the address of a tensor has changed: for a few hundred tensors
    this takes as long as a step of an optimizer on a GPU.
    """

    def __init__(self) -> None:
        self._known: list[Any] = []
        self._products: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    @torch.no_grad()
    def __call__(self, rows: Sequence[Masked]) -> None:
        """Write the zeros."""
        known = [
            (id(row.keep), [(t.data_ptr(), t.stride(), t.dtype) for t in row.tensors])
            for row in rows
        ]
        if known != self._known:
            self._prepare(rows)
            self._known = known
        for tensors, factors in self._products:
            torch._foreach_mul_(tensors, factors)  # pyright: ignore[reportPrivateImportUsage]

    def _prepare(self, rows: Sequence[Masked]) -> None:
        # The rows themselves are kept, so that no other tensor can get their addresses.
        self._rows = list(rows)
        together: dict[Any, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for row in rows:
            factors: dict[Any, torch.Tensor] = {}  # one for all tensors of a mask
            for tensor in (t for t in row.tensors if not t.is_meta and t.numel()):
                values = as_integers(tensor)
                kind = values.device, values.dtype
                if kind not in factors:
                    factors[kind] = row.keep.to(*kind)
                group = together.setdefault(kind, ([], []))
                group[0].append(values)
                group[1].append(factors[kind])
        self._products = list(together.values())


def same_shape_mask(keep: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask that broadcasts to a tensor, written out in its shape, device and order of memory."""
    keep = keep.to(like.device)
    if keep.shape == like.shape and same_order(keep, like):
        return keep
    return torch.empty_like(like, dtype=torch.bool).copy_(keep.expand(like.shape))
