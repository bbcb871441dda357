"""Which elements of a tensor this rank holds."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from secateurs.distributed.dtensor import dtensor_of, full_of, is_dtensor
from secateurs.distributed.process_group import Array, ProcessGroup
from secateurs.errors import InvalidArgumentError


@dataclass(frozen=True, eq=False)
class Shard:
    """This rank's part of a tensor: some of the indices of each dimension, or all.

    Attributes:
        shape: the shape of the whole tensor.
        rows: for each dimension, the indices that this rank holds, ascending; None if it holds the
            whole tensor.
        counted: whether this rank counts it; of several ranks that hold the same part, one does.
        mesh: the device mesh; None if the tensor is no DTensor.
        placements: how each dimension of the mesh divides the tensor.
    """

    shape: tuple[int, ...]
    rows: tuple[Array, ...] | None = None
    counted: bool = True
    mesh: Any = None
    placements: tuple[Any, ...] = ()

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def local(self) -> tuple[int, ...]:
        """The shape of this rank's part."""
        return self.shape if self.rows is None else tuple(map(len, self.rows))

    @property
    def indices(self) -> tuple[Array, ...]:
        """``rows``, also if this rank holds the whole tensor."""
        return tuple(map(np.arange, self.shape)) if self.rows is None else self.rows

    @property
    def cut(self) -> list[int]:
        """The dimensions that are divided over ranks."""
        return [placement.dim for placement in self.placements if not placement.is_replicate()]

    @property
    def is_whole(self) -> bool:
        """Whether this rank holds the whole tensor."""
        return self.local == self.shape

    @cached_property
    def first(self) -> int | None:
        """The flat index of the part's first element; None if its flat indices have gaps."""
        rows = self.indices
        cut = [d for d, some in enumerate(rows) if len(some) != self.shape[d]]
        if not cut:
            return 0
        inner = cut[-1]
        if any(len(rows[d]) != 1 for d in range(inner)) or not len(rows[inner]):
            return None
        if int(rows[inner][-1]) - int(rows[inner][0]) + 1 != len(rows[inner]):
            return None
        return int(self.indices_of(np.zeros(1, np.int64))[0])

    def indices_of(self, flat: Array) -> Array:
        """Convert flat indices in this rank's part to flat indices in the whole tensor."""
        if self.rows is None or not self.shape:
            return flat
        found = np.zeros(len(flat), np.int64)
        indices = np.unravel_index(flat, self.local) if len(flat) else [flat] * len(self.shape)
        step = 1
        for dimension in range(len(self.shape) - 1, -1, -1):
            found += self.rows[dimension][indices[dimension]] * step
            step *= self.shape[dimension]
        return found

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take this rank's part out of a tensor.

        Args:
            tensor: the whole tensor on every rank, or one that broadcasts to it; or a DTensor that
                is divided in any way, for which all ranks must call this together.
        """
        if is_dtensor(tensor):
            return self._of_dtensor(tensor)
        if self.rows is None:
            return tensor
        part = tensor
        for dimension, rows in enumerate(self.rows):
            size = tensor.shape[dimension]
            if size != self.shape[dimension] or len(rows) == size:
                continue
            start, count = (int(rows[0]), len(rows)) if len(rows) else (0, 0)
            if count == 0 or int(rows[-1]) - start + 1 == count:
                part = part.narrow(dimension, start, count)
            else:
                index = torch.from_numpy(rows).to(part.device)
                part = part.index_select(dimension, index)
        return part

    def _of_dtensor(self, tensor: Any) -> torch.Tensor:
        if tuple(tensor.shape) != self.shape or self.mesh is None:
            return self.of(full_of(tensor))
        if tuple(tensor.placements) != self.placements:
            tensor = tensor.redistribute(self.mesh, self.placements)
        return tensor.to_local()

    def as_dtensor(self, local: torch.Tensor) -> torch.Tensor:
        """Make a DTensor of this rank's part, if the tensor is one."""
        if self.mesh is None:
            return local
        return dtensor_of(local, self.mesh, self.placements, self.shape)

    def is_aligned(self, other: "Shard") -> bool:
        """Whether this part broadcasts to this rank's part of a larger tensor, index by index."""
        rows = zip(self.indices, other.indices, self.shape, strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs, size in rows if size > 1)

    def pooled(self, shape: tuple[int, ...]) -> Self:
        """The part of a tensor that has one entry for all indices of some dimensions.

        Args:
            shape: the shape of this whole tensor with those dimensions reduced to one; they must
                not be divided over ranks.
        """
        pairs = zip(self.indices, shape, self.shape, strict=True)
        rows = tuple(rows if size == full else rows[:1] for rows, size, full in pairs)
        return replace(self, shape=shape, rows=rows)

    def replicas(self, shape: tuple[int, ...], *, counted: bool) -> Self:
        """The part of a tensor that every rank of the mesh holds whole.

        Args:
            shape: the shape of that tensor.
            counted: whether this rank counts it.
        """
        from torch.distributed.tensor import Replicate

        placements = tuple(Replicate() for _ in self.placements)
        return replace(self, shape=shape, rows=None, counted=counted, placements=placements)


def shard_of(
    tensor: torch.Tensor, name: str = "a tensor", group: ProcessGroup | None = None
) -> Shard:
    """Find this rank's part of a tensor.

    Shards may be even or uneven, over any number of mesh dimensions, and strided (tensor
    parallelism under ``fully_shard``).

    Args:
        tensor: a DTensor or an ordinary tensor.
        name: the tensor's name, for an error.
        group: the ranks that hold the model; it decides which of several copies is counted.

    Raises:
        InvalidArgumentError: a placement that is neither a shard nor a replica.
    """
    shape = tuple(tensor.shape)
    counted = group is None or group.counts(tensor)
    if not is_dtensor(tensor):
        return Shard(shape, counted=counted)
    dtensor: Any = tensor
    mesh, placements = dtensor.device_mesh, tuple(dtensor.placements)
    rows = [np.arange(size) for size in shape]
    coordinates = mesh.get_coordinate()
    if coordinates is None:
        return Shard(shape, tuple(r[:0] for r in rows), counted, mesh, placements)
    for placement, coordinate, size in zip(placements, coordinates, mesh.shape, strict=True):
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
    shard = Shard(shape, tuple(rows), counted, mesh, placements)
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
