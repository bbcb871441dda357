"""Candidates: the units with the smallest scores, from which draws choose what is pruned."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from secateurs._tensors.memory_order import flattened, joined, same_order, side_by_side
from secateurs._validation import check_ratio, make_generator
from secateurs.distributed.dtensor import local_of, part_like
from secateurs.distributed.process_group import Team
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks._sparsity import count_nonzero
from secateurs.masks.bernoulli import draw_into
from secateurs.masks.granularity import Units
from secateurs.masks.mask import Mask, Masks, same_tensors


@dataclass(frozen=True, eq=False)
class Candidates:
    """Which units are candidates, ready to be drawn from any number of times.

    Equal to others of the same units and values.

    Attributes:
        units: for each parameter, how its elements fall into units.
        chosen: for each parameter, a bool tensor, one a unit; True is a candidate. A DTensor where
            the parameter is one.
        team: the ranks that hold the model; None in a single process.
    """

    units: Mapping[str, Units]
    chosen: Mapping[str, torch.Tensor]
    team: Team | None = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Candidates):
            return NotImplemented
        alike = self.units == other.units
        return self is other or (alike and _same(self.chosen, other.chosen))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def count(self) -> int:
        """How many units are candidates: k. All ranks must ask for it together."""
        return sum(count_nonzero(list(self.chosen.values())))

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
            out: the masks of an earlier draw from these candidates, to be overwritten; then the
                draw takes no new memory that lasts.

        Returns:
            The masks; ``out`` if it was given.

        Raises:
            InvalidArgumentError: ``p_bern`` lies outside [0, 1], or it is neither 0 nor 1 and
                there is no generator and no seed, or ``out`` is of other candidates.

        Example:
            >>> import torch, secateurs as sc
            >>> candidates = sc.select(torch.nn.Linear(8, 8), 0.5)
            >>> generator = torch.Generator().manual_seed(0)
            >>> masks = candidates.draw(0.5, generator=generator)
            >>> for _ in range(3):
            ...     masks = candidates.draw(0.5, generator=generator, out=masks)
        """
        if self.team is not None:
            self.team.agree("draw", {"p_bern": p_bern, "generator": generator, "seed": seed})
        p_bern = check_ratio("p_bern", p_bern)
        needed = Argument("p_bern", p_bern) if 0 < p_bern < 1 and self.team is None else None
        source = make_generator(generator, seed, needed_for=needed)
        masks = self._empty() if out is None else self._checked(out)
        keep = [masks.units[name].keep for name in self.chosen]
        if self.team is None or p_bern in (0.0, 1.0):
            draw_into(list(map(local_of, keep)), self._here(), p_bern, source)
        else:
            with self.team.shared(source) as same:
                self._draw_together(keep, p_bern, same, self.team)
        return masks

    def _draw_together(
        self, keep: list[torch.Tensor], p_bern: float, source: torch.Generator, team: Team
    ) -> None:
        if not team.sharded:
            draw_into(keep, self._here(), p_bern, source)
            return
        from secateurs.selection.sharded.sharded_bernoulli import draw_parts

        draw_parts(keep, list(self.chosen.values()), p_bern, source)

    def _here(self) -> list[torch.Tensor]:
        return [local_of(chosen) for chosen in self.chosen.values()]

    def _empty(self) -> Masks:
        made = zip(self.chosen.items(), side_by_side(self._here(), torch.bool), strict=True)
        return Masks({n: Mask(part_like(keep, c), self.units[n]) for (n, c), keep in made})

    def _checked(self, out: Masks) -> Masks:
        for name, chosen in self.chosen.items():
            mask = out.units.get(name)
            if mask is None or mask.units != self.units[name]:
                raise InvalidArgumentError(
                    f"out holds no mask for the units of {name}: give masks of an earlier draw "
                    "from the same candidates, or leave out away"
                )
            here = local_of(mask.keep), local_of(chosen)
            if mask.keep.device != chosen.device or not same_order(*here):
                raise InvalidArgumentError(
                    f"out holds the mask of {name} on another device or in another memory layout "
                    "than its candidates: leave out away"
                )
        return out


@dataclass(frozen=True, eq=False)
class Levels:
    """The candidates of several ratios at once, in one byte a unit; equal to others alike.

    Candidates are nested: those of a small ratio are candidates of every larger one. So the index
    of the first ratio at which a unit becomes a candidate says it all.

    Attributes:
        ratios: the values of p_prune, ascending.
        units: for each parameter, how its elements fall into units.
        level: for each parameter, a uint8 tensor, one a unit: the index of the first ratio at
            which the unit is a candidate, ``len(ratios)`` if it never is.
        team: the ranks that hold the model; None in a single process.
    """

    ratios: tuple[float, ...]
    units: Mapping[str, Units]
    level: Mapping[str, torch.Tensor]
    team: Team | None = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Levels):
            return NotImplemented
        alike = (self.ratios, self.units) == (other.ratios, other.units)
        return self is other or (alike and _same(self.level, other.level))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def at(self, p_prune: float) -> Candidates:
        """The candidates of one of the ratios.

        Raises:
            InvalidArgumentError: ``p_prune`` is not one of ``ratios``.
        """
        if p_prune not in self.ratios:
            raise InvalidArgumentError(f"p_prune={p_prune} is not one of {list(self.ratios)}")
        index = self.ratios.index(p_prune)
        levels = [local_of(level) for level in self.level.values()]
        made = side_by_side(levels, torch.bool)
        rows = zip(levels, made, strict=True)
        for level, chosen in joined([(flattened(lv), flattened(ch)) for lv, ch in rows]):
            torch.le(level, index, out=chosen)
        parts = zip(self.level.items(), made, strict=True)
        chosen = {name: part_like(here, level) for (name, level), here in parts}
        return Candidates(self.units, chosen, self.team)


def _same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and same_tensors(
        list(first.values()), [second[name] for name in first]
    )
