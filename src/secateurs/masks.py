"""Masks: which units are kept, as a value that checked itself once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.granularity import Units
from secateurs.sharding.presence import is_part, whole_of
from secateurs.sharding.team import team_of_tensors
from secateurs.sparsity import Sparsity, count_masks

_FORMAT = "secateurs-masks-1"
# What metadata that we did not write may lead to; our own errors are ValueErrors.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one parameter; equal to another one of the same units and values.

    Attributes:
        keep: bool, one a unit, in the shape ``units.unit``; True is kept.
        units: how the parameter's elements fall into units.
    """

    keep: torch.Tensor
    units: Units

    def __post_init__(self) -> None:
        if self.keep.dtype != torch.bool:
            raise InvalidArgumentError(
                f"a mask must be bool with True for kept, got {self.keep.dtype}; write mask.bool()"
            )
        if tuple(self.keep.shape) != self.units.unit:
            raise InvalidArgumentError(
                f"a mask of units {self.units.unit} cannot have the shape {tuple(self.keep.shape)}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        alike = self.units == other.units
        return self is other or (alike and same_tensors([self.keep], [other.keep]))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def broadcastable(self) -> torch.Tensor:
        """The mask in a shape that broadcasts against the weight."""
        return self.units.broadcastable(self.keep)


def same_tensors(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Whether tensors are equal one by one, on whatever devices.

    Raises:
        InvalidArgumentError: a tensor is divided over ranks, of which none can tell alone.
    """
    if any(map(is_part, (*first, *second))):
        raise InvalidArgumentError(
            "what is divided over ranks cannot be compared with ==, since no rank has all of it: "
            "save the masks and compare Masks.load(path), or compare the tensors' to_local()"
        )
    return all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))
        for a, b in zip(first, second, strict=True)
    )


class Masks(Mapping[str, torch.Tensor]):
    """The outcome of a draw: for each parameter, a bool tensor in its shape, True where kept.

    A mapping from qualified names, equal to another one that says the same of the same names, at
    whatever granularity and on whatever device. Units are kept compactly: a kernel or filter mask
    takes one byte a unit until you look at it.

    Args:
        masks: one `Mask` for each qualified name.

    Example:
        >>> import torch, secateurs as sc
        >>> masks = sc.select(torch.nn.Linear(4, 4), 0.5).draw()
        >>> masks["weight"].shape, masks.sparsity
        (torch.Size([4, 4]), 0.5)
    """

    def __init__(self, masks: Mapping[str, Mask]):
        self.units = dict(masks)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> "Masks":
        """Wrap bool tensors in the parameters' shapes, True where kept.

        Raises:
            InvalidArgumentError: one of them is not bool.
        """
        return cls(
            {
                name: Mask(t, Units(tuple(t.shape), tuple(t.shape), tuple(t.shape)))
                for name, t in tensors.items()
            }
        )

    def __getitem__(self, name: str) -> torch.Tensor:
        mask = self.units[name]
        return mask.units.expand(mask.keep)

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
        if set(self) != set(theirs) or not all(
            isinstance(t, torch.Tensor) for t in theirs.values()
        ):
            return False
        return same_tensors([self[name] for name in self], [theirs[name] for name in self])

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        if any(is_part(m.keep) for m in self.units.values()):  # no rank may count on its own
            return f"Masks({len(self)} parameters over several ranks)"
        return f"Masks({len(self)} parameters, sparsity={self.sparsity:.4f})"

    @property
    def table(self) -> Sparsity:
        """Pruned elements for each parameter and in total.

        Of a sharded model on all ranks, which must ask together.
        """
        return count_masks({n: (m.broadcastable, m.units.shape) for n, m in self.units.items()})

    @property
    def sparsity(self) -> float:
        """The ratio of target weights (elements) that are pruned, from 0.0 to 1.0."""
        return self.table.ratio

    @property
    def density(self) -> float:
        """``1 - sparsity``."""
        return 1.0 - self.sparsity

    def to(self, device: torch.device | str) -> "Masks":
        """Copy the masks to a device."""
        return Masks({name: Mask(m.keep.to(device), m.units) for name, m in self.units.items()})

    def save(self, path: str | Path) -> None:
        """Write the masks as safetensors: bool tensors of units, their shapes in the metadata.

        Masks of a sharded model are gathered; rank 0 writes, and all ranks wait for it.

        Raises:
            FailureError: the file cannot be written.
        """
        team = team_of_tensors([m.keep for m in self.units.values()])
        if team is None:
            self._write(path, {name: m.keep for name, m in self.units.items()})
            return
        team.agree("Masks.save", {"path": str(path)})
        whole: dict[str, torch.Tensor] = {}
        for name, m in self.units.items():
            keep = whole_of(m.keep)  # on every rank for a moment, since all must take part
            if team.rank == 0:
                whole[name] = keep
        with team.together():
            if team.rank == 0:
                self._write(path, whole)

    def _write(self, path: str | Path, keep: Mapping[str, torch.Tensor]) -> None:
        shapes = {name: asdict(m.units) for name, m in self.units.items()}
        metadata = {"format": _FORMAT, "units": json.dumps(shapes)}
        tensors = {  # copies, since a file cannot hold one tensor under two names
            name: mask.cpu().clone(memory_format=torch.contiguous_format)
            for name, mask in keep.items()
        }
        try:
            save_file(tensors, str(path), metadata)
        except (OSError, SafetensorError) as error:
            raise FailureError(f"cannot write the masks to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Masks":
        """Read masks that `save` wrote.

        Raises:
            InvalidArgumentError: the file does not exist, or is not one of ours.
        """
        if not Path(path).is_file():
            raise InvalidArgumentError(f"there is no file {path} to read masks from")
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != _FORMAT:
                raise InvalidArgumentError("it holds no masks: write them with masks.save(path)")
            # The header sorts names; the metadata remembers the model's order.
            shapes = json.loads(metadata["units"])
            if set(shapes) != set(tensors):
                raise InvalidArgumentError("its metadata names other parameters than it holds")
            units = {
                name: Units(**{k: tuple(v) for k, v in s.items()}) for name, s in shapes.items()
            }
            return cls({name: Mask(tensors[name], u) for name, u in units.items()})
        except (OSError, SafetensorError, *_MALFORMED) as error:
            raise InvalidArgumentError(f"{path} cannot be read as masks: {error}") from error
