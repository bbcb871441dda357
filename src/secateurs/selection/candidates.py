"""Candidates: the units with the smallest scores, from which draws choose the pruned ones."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from secateurs._tensors.memory_order import flattened, joined, same_order, side_by_side
from secateurs._validation import check_ratio
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks._sparsity import count_nonzero
from secateurs.masks.bernoulli import draw_into
from secateurs.masks.granularity import Units
from secateurs.masks.mask import Mask, Masks, check_masks, comparison_error


@dataclass(frozen=True, eq=False)
class Candidates:
    """Which units are candidates; any number of masks can be drawn from them.

    Equal to other candidates of the same units and values.

    Attributes:
        units: for each parameter, how its elements fall into units.
        local: for each parameter a bool tensor, one for each unit on this rank (in a single
            process, all); True is a candidate.
        group: the ranks that hold the model.
    """

    units: Mapping[str, Units]
    local: Mapping[str, torch.Tensor]
    group: ProcessGroup = field(default_factory=ProcessGroup, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Candidates):
            return NotImplemented
        alike = self.units == other.units
        return self is other or (alike and _same(self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        if self.group.is_sharded:  # no rank may count on its own
            return f"Candidates(of {self.total} units, over several ranks)"
        return f"Candidates({self.count} of {self.total} units)"

    @property
    def chosen(self) -> Mapping[str, torch.Tensor]:
        """For each parameter a bool tensor, one a unit; a DTensor where the parameter is one."""
        return _as_dtensors(self.local, self.units)

    @property
    def count(self) -> int:
        """How many units are candidates: k. All ranks must read it together."""
        rows = [(local, self.units[name].shard) for name, local in self.local.items()]
        return sum(count for count, _ in count_nonzero(rows, self.group.holders))

    @property
    def total(self) -> int:
        """How many units compete: n."""
        return sum(units.count for units in self.units.values())

    def draw(
        self,
        p_bern: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        out: Masks | None = None,
    ) -> Masks:
        """Prune each candidate with probability ``p_bern``, independently (DWP, section 3.2).

        The mask is ``P = (1 - candidate * b)`` with ``b ~ Bernoulli(p_bern)``.

        Args:
            p_bern: from 0 to 1; 1 prunes every candidate and needs no randomness.
            generator: the source of randomness; its state advances. One on the CPU gives the same
                masks on every device; one on another device draws there, without waiting for it.
            seed: seeds a fresh CPU generator instead.
            out: the masks of an earlier draw from these candidates, which are overwritten instead
                of allocating new ones.

        Returns:
            The masks; ``out`` if it was given.

        Raises:
            InvalidArgumentError: ``p_bern`` is outside [0, 1], or neither 0 nor 1 without a
                generator or a seed; or ``out`` is from other candidates.

        Example:
            >>> import torch, secateurs as sc
            >>> candidates = sc.select(torch.nn.Linear(8, 8), 0.5)
            >>> generator = torch.Generator().manual_seed(0)
            >>> masks = candidates.draw(0.5, generator=generator)
            >>> for _ in range(3):
            ...     masks = candidates.draw(0.5, generator=generator, out=masks)
        """
        self.group.agree("draw", {"p_bern": p_bern, "generator": generator, "seed": seed})
        p_bern = check_ratio("p_bern", p_bern)
        random = 0 < p_bern < 1
        needed_for = Argument("p_bern", p_bern) if random else None
        source = self.group.generator(generator, seed, needed_for)
        masks = self._empty_masks() if out is None else self._checked(out)
        keep = [masks.units[name].keep for name in self.local]
        placements = [self.units[name].placement for name in self.local]
        with self.group.shared(source) if random else nullcontext(source) as same:
            draw_into(keep, list(self.local.values()), p_bern, same, placements)
        return masks

    def _empty_masks(self) -> Masks:
        made = zip(self.local, side_by_side(list(self.local.values()), torch.bool), strict=True)
        masks = {name: Mask(keep, self.units[name]) for name, keep in made}
        return Masks(masks, self.group.holders)

    def _checked(self, out: Masks) -> Masks:
        check_masks("out", out)
        for name, chosen in self.local.items():
            mask = out.units.get(name)
            if mask is None or mask.units != self.units[name]:
                raise InvalidArgumentError(
                    f"out holds no mask for the units of {name}: give masks of an earlier draw "
                    "from the same candidates, or call draw without out"
                )
            if mask.keep.device != chosen.device or not same_order(mask.keep, chosen):
                raise InvalidArgumentError(
                    f"out holds the mask of {name} on another device or in another memory layout "
                    "than its candidates: call draw without out"
                )
        return out


@dataclass(frozen=True, eq=False)
class Levels:
    """The candidates of several ratios at once, in one byte for each unit.

    Candidates are nested: those of a small ratio are candidates of every larger one. So it suffices
    to keep, for each unit, the index of the first ratio at which it is a candidate. Equal to other
    levels of the same ratios, units and values.

    Attributes:
        ratios: the values of p_prune, ascending.
        units: as for `Candidates`.
        local: for each parameter a uint8 tensor, one for each unit on this rank: the index of the
            first ratio at which the unit is a candidate, ``len(ratios)`` if it never is.
        group: as for `Candidates`.
    """

    ratios: tuple[float, ...]
    units: Mapping[str, Units] = field(repr=False)
    local: Mapping[str, torch.Tensor] = field(repr=False)
    group: ProcessGroup = field(default_factory=ProcessGroup, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Levels):
            return NotImplemented
        alike = (self.ratios, self.units) == (other.ratios, other.units)
        return self is other or (alike and _same(self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def level(self) -> Mapping[str, torch.Tensor]:
        """``local``, as a DTensor where the parameter is one."""
        return _as_dtensors(self.local, self.units)

    def at(self, p_prune: float) -> Candidates:
        """The candidates of one of the ratios.

        Raises:
            InvalidArgumentError: ``p_prune`` is not one of ``ratios``.
        """
        if p_prune not in self.ratios:
            raise InvalidArgumentError(f"p_prune={p_prune} is not one of {list(self.ratios)}")
        index = self.ratios.index(p_prune)
        levels = list(self.local.values())
        made = side_by_side(levels, torch.bool)
        rows = zip(levels, made, strict=True)
        for level, chosen in joined([(flattened(lv), flattened(ch)) for lv, ch in rows]):
            torch.le(level, index, out=chosen)
        return Candidates(self.units, dict(zip(self.local, made, strict=True)), self.group)


def _as_dtensors(
    local: Mapping[str, torch.Tensor], units: Mapping[str, Units]
) -> Mapping[str, torch.Tensor]:
    return {name: units[name].shard.as_dtensor(tensor) for name, tensor in local.items()}


def _same(first: Candidates | Levels, second: Candidates | Levels) -> bool:
    """Whether two sets of the same units have equal values; devices may differ.

    Raises:
        InvalidArgumentError: they are divided over ranks, so that no rank can compare them alone.
    """
    every = (*first.units.values(), *second.units.values())
    if any(units.placement is not None for units in every):
        raise comparison_error()
    pairs = [(tensor, second.local[name]) for name, tensor in first.local.items()]
    return all(torch.equal(mine, theirs.to(mine.device)) for mine, theirs in pairs)
