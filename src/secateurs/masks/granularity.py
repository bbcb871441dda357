"""Units: the elements that are pruned together, their pooled scores, and the masks of weights.

| granularity | convolution | linear, attention, recurrent | stacked experts | other parameters |
|---|---|---|---|---|
| ``weight`` | one element | one element | one element | one element |
| ``kernel`` | one input and output channel | one element | one element | dimensions beyond two |
| ``filter`` | one output channel | one output | one output of one expert | an entry of the first |

An output is a row of a linear layer, a column of a ``Conv1D``, whose weight is (in, out), and a row
of a recurrent layer, where it is one gate of one hidden unit.
"""

from dataclasses import dataclass, field, replace
from typing import cast

import torch

from secateurs.distributed.process_group import ProcessGroup
from secateurs.distributed.shard import Shard
from secateurs.parameters.target import Target

GRANULARITIES = ("weight", "kernel", "filter")


@dataclass(frozen=True)
class Units:
    """How the elements of one weight fall into units.

    Attributes:
        shape: the weight's own shape.
        view: the weight's shape, but for grouped transposed convolutions: there the first dimension
            is split into groups, since an output channel has elements in one group only.
        unit: ``view`` with a one in each dimension that a unit spans.
        placement: which of the units are on this rank; None if the model is not divided over ranks.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    unit: tuple[int, ...]
    placement: Shard | None = field(default=None, compare=False, repr=False)

    @property
    def shard(self) -> Shard:
        """Which of the units are on this rank."""
        return Shard(self.unit) if self.placement is None else self.placement

    @property
    def described(self) -> dict[str, tuple[int, ...]]:
        """The shapes by name, as files hold them; the same on every rank."""
        return {"shape": self.shape, "view": self.view, "unit": self.unit}

    @property
    def pooled(self) -> tuple[int, ...]:
        """The dimensions of ``view`` that a unit spans."""
        if self.view == self.unit:
            return ()
        return tuple(i for i, (v, u) in enumerate(zip(self.view, self.unit, strict=True)) if v != u)

    @property
    def count(self) -> int:
        """The number of units."""
        return torch.Size(self.unit).numel()

    @property
    def size(self) -> int:
        """The number of elements in one unit (0 if there are no units)."""
        count = self.count
        return torch.Size(self.shape).numel() // count if count else 0

    def pool(self, scores: torch.Tensor) -> torch.Tensor:
        """Sum element scores (of ``shape``) over each unit; returns ``unit``'s shape.

        They are summed in float64 and rounded once, so that the candidates do not depend on the
        order of summation: on the number of threads, ranks or chunks. The result is float64 for
        float64 scores, else float32. Units of one element keep their score and its dtype.
        """
        if not self.pooled:
            return scores
        dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        pooled = scores.reshape(self.view).sum(self.pooled, keepdim=True, dtype=torch.float64)
        return pooled.to(dtype)

    def broadcastable(self, mask: torch.Tensor) -> torch.Tensor:
        """Bring a unit mask into a shape that broadcasts against the weight."""
        if self.view == self.shape:
            return mask
        return mask.expand(self.view).reshape(self.shape)

    def expand(self, mask: torch.Tensor) -> torch.Tensor:
        """Expand a unit mask (of ``unit``'s shape) to the elements, in ``shape``."""
        return self.broadcastable(mask).expand(self.shape)


def units_of(target: Target, granularity: str) -> Units:
    """Group ``target``'s elements into units, and say which of the units are on this rank.

    Args:
        target: a parameter, with the module that holds it.
        granularity: ``weight``, ``kernel`` or ``filter``, already checked.
    """
    units, elements = _units_of_whole(target, granularity), target.placement
    if elements is None:
        return units
    return replace(units, placement=_placement(units, elements, target.group))


def are_cut(units: Units, elements: Shard) -> bool:
    """Whether some units have elements on several ranks."""
    if units.view != units.shape:
        return bool(elements.cut)
    return any(units.unit[dimension] != units.shape[dimension] for dimension in elements.cut)


def _placement(units: Units, elements: Shard, group: ProcessGroup) -> Shard:
    """Which units a rank has that has these elements: all, if units are divided over ranks."""
    if elements.mesh is None:
        return Shard(units.unit, counted=elements.counted)
    if are_cut(units, elements):
        return elements.replicas(units.unit, counted=group.rank == 0)
    if units.view != units.shape:
        return replace(elements, shape=units.unit, rows=None)
    return elements.pooled(units.unit)


def _units_of_whole(target: Target, granularity: str) -> Units:
    shape = tuple(target.parameter.shape)
    if granularity == "weight" or len(shape) < 2 or (granularity == "kernel" and target.is_stack):
        return Units(shape, shape, shape)
    if granularity == "kernel":
        return Units(shape, shape, (*shape[:2], *(1 for _ in shape[2:])))
    if target.outputs_last:
        return Units(shape, shape, (*shape[:-2], 1, shape[-1]))
    if target.is_stack:
        return Units(shape, shape, (*shape[:2], 1))
    if target.is_transposed:
        groups = cast(int, target.module.groups)
        view = (groups, shape[0] // groups, *shape[1:])
        unit = (groups, 1, shape[1], *(1 for _ in shape[2:]))
        # Units of one element keep the weight's shape, as scores of elements do.
        return Units(shape, shape, shape) if unit == view else Units(shape, view, unit)
    return Units(shape, shape, (shape[0], *(1 for _ in shape[1:])))
