"""Where the part of a tensor that lies on this rank lies in the whole."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from secateurs.distributed.dtensor import is_part
from secateurs.errors import InvalidArgumentError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Shard:
    """The part of a tensor that lies here: some indices of each of its dimensions.

    Attributes:
        shape: the shape of the whole.
        rows: for each dimension, the indices that lie here, ascending.
    """

    shape: tuple[int, ...]
    rows: tuple[Array, ...]

    @property
    def local(self) -> tuple[int, ...]:
        """The shape of the part that lies here."""
        return tuple(len(rows) for rows in self.rows)

    @cached_property
    def first(self) -> int | None:
        """The flat index of the first element, if the part is one run of flat indices."""
        cut = [d for d, rows in enumerate(self.rows) if len(rows) != self.shape[d]]
        if not cut:
            return 0
        inner = cut[-1]
        rows = self.rows[inner]
        if any(len(self.rows[d]) != 1 for d in range(inner)) or not len(rows):
            return None
        if int(rows[-1]) - int(rows[0]) + 1 != len(rows):
            return None
        return int(self.places(0, 1)[0])

    def places(self, start: int, stop: int) -> Array:
        """The flat indices in the whole of the elements ``start`` to ``stop`` of the part."""
        return self.places_of(np.arange(start, stop))

    def places_of(self, flat: Array) -> Array:
        """The flat indices in the whole of some flat indices in the part."""
        if not self.shape:
            return flat
        places = np.zeros(len(flat), np.int64)
        indices = np.unravel_index(flat, self.local) if len(flat) else [flat] * len(self.shape)
        step = 1
        for dimension in range(len(self.shape) - 1, -1, -1):
            places += self.rows[dimension][indices[dimension]] * step
            step *= self.shape[dimension]
        return places

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """Take the part out of a whole tensor, or out of one that broadcasts to it."""
        part = whole
        for dimension, rows in enumerate(self.rows):
            size = whole.shape[dimension]
            if size != self.shape[dimension] or len(rows) == size:
                continue
            start, count = (int(rows[0]), len(rows)) if len(rows) else (0, 0)
            if count == 0 or int(rows[-1]) - start + 1 == count:
                part = part.narrow(dimension, start, count)
            else:
                index = torch.from_numpy(rows).to(part.device)
                part = part.index_select(dimension, index)
        return part


def shard_of(tensor: torch.Tensor, name: str = "a tensor") -> Shard:
    """Say where the part of a tensor that lies here lies in the whole.

    Even and uneven shards, over any number of mesh dimensions, and strided ones (tensor parallel
    under ``fully_shard``).

    Raises:
        InvalidArgumentError: a placement that is neither a shard nor a replica.
    """
    shape = tuple(tensor.shape)
    rows = [np.arange(size) for size in shape]
    if not is_part(tensor):
        return Shard(shape, tuple(rows))
    dtensor: Any = tensor
    coordinates = dtensor.device_mesh.get_coordinate()
    if coordinates is None:
        return Shard(shape, tuple(r[:0] for r in rows))
    for placement, coordinate, size in zip(
        dtensor.placements, coordinates, dtensor.device_mesh.shape, strict=True
    ):
        if placement.is_replicate():
            continue
        dimension = getattr(placement, "dim", None)
        if dimension is None:
            raise InvalidArgumentError(
                f"{name} has the placement {placement}, which cannot be pruned: "
                "redistribute it to shards or replicas first"
            )
        factor = getattr(placement, "split_factor", 1)
        blocks = [_chunk(block, size, coordinate) for block in _chunks(rows[dimension], factor)]
        rows[dimension] = np.concatenate(blocks)
    shard = Shard(shape, tuple(rows))
    if shard.local != tuple(dtensor._local_tensor.shape):
        raise InvalidArgumentError(
            f"{name} has a local part of shape {tuple(dtensor._local_tensor.shape)} where its "
            f"placements {dtensor.placements} say {shard.local}: it cannot be placed in the whole"
        )
    return shard


def _chunk(values: Array, count: int, index: int) -> Array:
    size = -(-len(values) // count)
    return values[index * size : (index + 1) * size]


def _chunks(values: Array, count: int) -> list[Array]:
    return [values] if count == 1 else [_chunk(values, count, i) for i in range(count)]
