"""Masks: which units are kept. A mask checks itself once, on creation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from secateurs._io.text import counted, quoted, shortened
from secateurs._validation import check_path
from secateurs.distributed.dtensor import full_of
from secateurs.distributed.model_group import group_of_tensors
from secateurs.distributed.process_group import ProcessGroup
from secateurs.distributed.shard import shard_of
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks._sparsity import Sparsity, count_masks
from secateurs.masks.granularity import Units
from secateurs.masks.mask_file import read_mask_file, write_mask_file


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one parameter; equal to another one of the same units and values.

    Attributes:
        keep: bool, one for each unit on this rank (in a single process, all); True is kept.
        units: how the parameter's elements fall into units.
    """

    keep: torch.Tensor
    units: Units

    def __post_init__(self) -> None:
        if self.keep.dtype != torch.bool:
            raise InvalidArgumentError(
                f"a mask must be bool with True for kept, got {self.keep.dtype}; write mask.bool()"
            )
        if self.keep.layout is not torch.strided:
            raise InvalidArgumentError(
                f"a mask must be dense, got the layout {self.keep.layout}; write mask.to_dense()"
            )
        unit = self.units.unit if self.units.placement is None else self.units.placement.local
        if tuple(self.keep.shape) != unit:
            raise InvalidArgumentError(
                f"a mask of units {unit} cannot have the shape {tuple(self.keep.shape)}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        alike = self.units == other.units
        return self is other or (alike and same_values([self], [other]))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def broadcastable(self) -> torch.Tensor:
        """The mask in a shape that broadcasts to the weight; a DTensor where the weight is one."""
        return self.units.broadcastable(self.units.shard.as_dtensor(self.keep))

    @property
    def expanded(self) -> torch.Tensor:
        """The mask in the weight's shape; a DTensor where the weight is one."""
        return self.units.expand(self.units.shard.as_dtensor(self.keep))

    @property
    def is_distributed(self) -> bool:
        """Whether the parameter is a DTensor, which may be divided over ranks."""
        return self.units.shard.mesh is not None


def same_values(first: Sequence[Mask], second: Sequence[Mask]) -> bool:
    """Whether each mask equals its counterpart in every element; devices may differ.

    Raises:
        InvalidArgumentError: a mask is divided over ranks, so that no rank can compare it alone.
    """
    if any(mask.is_distributed for mask in (*first, *second)):
        raise comparison_error()
    return all(map(_same_elements, first, second))


def _same_elements(first: Mask, second: Mask) -> bool:
    if first.units == second.units:
        return torch.equal(first.keep, second.keep.to(first.keep.device))
    if first.units.shape != second.units.shape:
        return False
    return torch.equal(first.expanded, second.expanded.to(first.keep.device))


def comparison_error() -> InvalidArgumentError:
    """The error for a comparison of masks or candidates that are divided over ranks."""
    return InvalidArgumentError(
        "masks and candidates divided over ranks cannot be compared with ==, as no rank has all: "
        "save the masks and compare Masks.load(path), or compare the tensors' to_local()"
    )


class Masks(Mapping[str, torch.Tensor]):
    """The outcome of a draw: for each parameter, a bool tensor in its shape, True where kept.

    A mapping from qualified names. It is equal to another one if both prune the same elements;
    granularity and device may differ. A kernel or filter mask takes one byte for each unit; it is
    expanded to the parameter's shape when it is read.

    Args:
        masks: one `Mask` for each qualified name.
        group: the ranks that together hold one copy of the model; default this process alone.

    Example:
        >>> import torch, secateurs as sc
        >>> masks = sc.select(torch.nn.Linear(4, 4), 0.5).draw()
        >>> masks["weight"].shape, masks.sparsity
        (torch.Size([4, 4]), 0.5)
    """

    def __init__(self, masks: Mapping[str, Mask], group: ProcessGroup | None = None):
        if not isinstance(masks, Mapping) or not all(isinstance(m, Mask) for m in masks.values()):
            raise InvalidArgumentError(
                "Masks takes a mapping from names to secateurs.Mask: of bool tensors write "
                "Masks.from_tensors(...)"
            )
        self.units = dict(masks)
        self._group = group or ProcessGroup()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> "Masks":
        """Wrap bool tensors in the parameters' shapes, True where kept.

        Raises:
            InvalidArgumentError: a name is not text, or a tensor is not a dense one of bool.
        """
        if not isinstance(tensors, Mapping):
            raise InvalidArgumentError(
                "tensors must be a mapping from names to bool tensors, "
                f"got {type(tensors).__name__}"
            )
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise InvalidArgumentError(
                    f"masks go by the names of parameters, got {quoted(name)}"
                )
            if not isinstance(tensor, torch.Tensor):
                raise InvalidArgumentError(
                    f"the mask of {name} must be a bool tensor with True for kept, "
                    f"got {type(tensor).__name__}"
                )
        group = group_of_tensors(tensors.values())  # there is no model to ask
        masks: dict[str, Mask] = {}
        for name, tensor in tensors.items():
            shard = shard_of(tensor, name, group)
            units = Units(shard.shape, shard.shape, shard.shape, shard)
            masks[name] = Mask(shard.of(tensor), units)
        return cls(masks, group)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.units[name].expanded

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs: Mapping[Any, Any] = other
        if set(self) != set(theirs):
            return False
        if not isinstance(theirs, Masks):
            values = theirs.values()
            if not all(isinstance(t, torch.Tensor) and t.dtype == torch.bool for t in values):
                return False
            theirs = Masks.from_tensors(theirs)
        return same_values([self.units[n] for n in self], [theirs.units[n] for n in self])

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        if self._group.is_sharded:  # no rank may count on its own
            return f"Masks({counted(len(self), 'parameter')} over several ranks)"
        return f"Masks({counted(len(self), 'parameter')}, sparsity={self.sparsity:.4f})"

    @property
    def table(self) -> Sparsity:
        """Pruned elements for each parameter and in total.

        All ranks of a sharded model must read it together.
        """
        return count_masks({n: (m.keep, m.units) for n, m in self.units.items()}, self._group)

    @property
    def sparsity(self) -> float:
        """The ratio of the masks' elements that are pruned, from 0.0 to 1.0."""
        return self.table.ratio

    def plot(self, *, title: str | None = None) -> Any:
        """`Sparsity.plot` of `table`."""
        return self.table.plot(title=title)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    @property
    def density(self) -> float:
        """``1 - sparsity``."""
        return 1.0 - self.sparsity

    def to(self, device: torch.device | str) -> "Masks":
        """Copy the masks to a device."""
        moved = {name: Mask(m.keep.to(device), m.units) for name, m in self.units.items()}
        return Masks(moved, self._group)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: a bool for each unit, and the units' shapes in the metadata.

        Masks of a sharded model are gathered; rank 0 writes, and all ranks wait for it.

        Raises:
            InvalidArgumentError: ``path`` is no path.
            FailureError: the file cannot be written.
        """
        group, path = self._group, check_path("path", path)
        group.agree("Masks.save", {"path": str(path)})
        whole: dict[str, torch.Tensor] = {}
        for name, m in self.units.items():
            keep = full_of(m.units.shard.as_dtensor(m.keep))  # a collective: all ranks call it
            if group.rank == 0:
                whole[name] = keep
        with group.together():
            if group.rank == 0:
                write_mask_file(path, whole, {name: m.units for name, m in self.units.items()})

    @classmethod
    def load(cls, path: str | Path) -> "Masks":
        """Read masks that `save` wrote.

        Raises:
            InvalidArgumentError: the file does not exist, or does not hold masks.

        Example:
            >>> import tempfile, torch, secateurs as sc
            >>> masks = sc.select(torch.nn.Linear(4, 4), 0.5).draw()
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     masks.save(f"{folder}/masks.safetensors")
            ...     sc.Masks.load(f"{folder}/masks.safetensors") == masks
            True
        """
        path = check_path("path", path)
        if not path.is_file():
            raise InvalidArgumentError(f"there is no file {path} to read masks from")
        try:
            read = read_mask_file(path)
            return cls({name: Mask(keep, units) for name, (keep, units) in read.items()})
        except (OSError, SafetensorError, ValueError) as error:
            raise InvalidArgumentError(
                f"{path} cannot be read as masks: {shortened(str(error))}"
            ) from error


def check_masks(name: str, masks: object) -> None:
    """Refuse what the argument ``name`` got instead of `Masks`, such as candidates."""
    if not isinstance(masks, Masks):
        raise InvalidArgumentError(
            Argument(name),
            f" must be secateurs.Masks, got {type(masks).__name__}; "
            "write candidates.draw(), or Masks.from_tensors(...) of bool tensors",
        )
