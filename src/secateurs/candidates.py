"""Candidates: the units with the smallest scores, from which draws choose what is pruned."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

import torch
from torch import nn

from secateurs._checks import check_choice, check_ratio, make_generator
from secateurs.draw import draw_into
from secateurs.errors import InvalidArgumentError
from secateurs.granularity import GRANULARITIES, Units, units_of
from secateurs.keys import Scores
from secateurs.layout import flattened, joined, same_order, side_by_side
from secateurs.marking import Marks
from secateurs.masks import Mask, Masks
from secateurs.scores import Score, check_score, score_units
from secateurs.selection import candidate_masks
from secateurs.sharding.presence import local_of, part_like
from secateurs.sharding.team import Team, parameters_of, team_of
from secateurs.sparsity import count_nonzero
from secateurs.targets import Layers, Patterns, Target, find_targets

SCOPES = ("global", "layer")


class SelectOptions(TypedDict, total=False):
    """The keyword arguments of `select`, for the functions that pass them on."""

    granularity: str
    scope: str
    score: Score
    layers: Layers | None
    include: Patterns | None
    exclude: Patterns | None
    generator: torch.Generator | None
    seed: int | None


@dataclass(frozen=True)
class Candidates:
    """Which units are candidates, ready to be drawn from any number of times.

    Attributes:
        units: for each parameter, how its elements fall into units.
        chosen: for each parameter, a bool tensor, one a unit; True is a candidate. A DTensor where
            the parameter is one.
        team: the ranks that hold the model; None in a single process.
    """

    units: Mapping[str, Units]
    chosen: Mapping[str, torch.Tensor]
    team: Team | None = field(default=None, repr=False, compare=False)

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
        needed = f"p_bern={p_bern:g}" if 0 < p_bern < 1 and self.team is None else None
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
        from secateurs.ranks.drawing import draw_parts

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


@dataclass(frozen=True)
class Levels:
    """The candidates of several ratios at once, in one byte a unit.

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
    team: Team | None = field(default=None, repr=False, compare=False)

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


def select(
    model: nn.Module,
    p_prune: float,
    *,
    granularity: str = "weight",
    scope: str = "global",
    score: Score = "magnitude",
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
) -> Candidates:
    """Choose the ``k = round(p_prune * n)`` units with the smallest scores, exactly.

    Ties go to the earlier unit: in the order of ``named_parameters``, then by flat index. Original
    weights are scored, also while the model is pruned.

    Args:
        model: the network; it is not changed.
        p_prune: the ratio of units, from 0 to 1 inclusive.
        granularity: ``"weight"`` (one element), ``"kernel"`` (one 2-D kernel of a convolution) or
            ``"filter"`` (one output channel).
        scope: ``"global"`` (all units compete) or ``"layer"`` (each parameter on its own).
        score: ``"magnitude"`` (L1 norm), ``"gradient"``, ``"taylor"``, ``"random"``, or a function
            that takes a `Target` and returns a tensor of scores.
        layers: which layers compete; see `secateurs.targets.find_targets`.
        include: only these; see `secateurs.targets.find_targets`.
        exclude: not these; see `secateurs.targets.find_targets`.
        generator: for ``score="random"``; its state advances.
        seed: for ``score="random"``, instead of a generator.

    Returns:
        The candidates; `Candidates.draw` turns them into masks.

    Raises:
        InvalidArgumentError: a ratio outside [0, 1], an unknown name, a NaN score, nothing to
            prune, or random scores without generator and seed.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 5)
        >>> candidates = select(model, 0.3)
        >>> candidates.count, candidates.total
        (6, 20)
    """
    options: SelectOptions = {
        "granularity": granularity,
        "scope": scope,
        "score": score,
        "layers": layers,
        "include": include,
        "exclude": exclude,
        "generator": generator,
        "seed": seed,
    }
    team = team_of(model)
    if team is not None:
        agree(team, model, "select", p_prune=p_prune, **options)
    p_prune = check_ratio("p_prune", p_prune)
    units, groups = _scored(model, team, **options)
    return Candidates(units, _chosen(groups, p_prune, team), team)


def select_levels(
    model: nn.Module, ratios: Sequence[float], **options: Unpack[SelectOptions]
) -> Levels:
    """Choose the candidates of several ratios at once.

    Args:
        model: the network; it is not changed.
        ratios: values of p_prune, at most 255 different ones.
        **options: the keyword arguments of `select`.

    Returns:
        One byte a unit, from which the candidates of each ratio follow by one comparison.

    Raises:
        InvalidArgumentError: as `select`, or no ratio, or more than 255.
    """
    team = team_of(model)
    if team is not None:
        agree(team, model, "select_levels", ratios=list(ratios), **options)
    if not isinstance(ratios, Iterable):
        raise InvalidArgumentError(f"ratios must be several values of p_prune; write [{ratios!r}]")
    ordered = tuple(sorted({check_ratio("p_prune", ratio) for ratio in ratios}))
    if not 1 <= len(ordered) <= 255:
        raise InvalidArgumentError(f"give 1 to 255 values of p_prune, got {len(ordered)}")
    units, groups = _scored(model, team, **options)
    scores = [scores for group in groups for scores in group]
    level = side_by_side([s.values for s in scores], torch.uint8)
    flats = [flattened(one.zero_()) for one in level]
    chosen: dict[str, torch.Tensor] = {}
    for ratio in ordered:
        chosen = _chosen(groups, ratio, team)
        marks = [flattened(local_of(mask)) for mask in chosen.values()]
        for total, marked in joined(list(zip(flats, marks, strict=True))):
            total += ~marked
    made = zip(chosen.items(), level, strict=True)
    return Levels(ordered, units, {name: part_like(one, mask) for (name, mask), one in made}, team)


def agree(team: Team, model: nn.Module, action: str, **given: object) -> None:
    """Check that all ranks do the same to the same model; see `Team.agree`."""
    team.agree(action, {"model": parameters_of(model)} | given)


def _scored(
    model: nn.Module,
    team: Team | None,
    *,
    granularity: str = "weight",
    scope: str = "global",
    score: Score = "magnitude",
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
) -> tuple[dict[str, Units], list[list[Scores]]]:
    """Check the arguments, score the units, and group those that compete with each other."""
    granularity = check_choice("granularity", granularity, GRANULARITIES)
    scope = check_choice("scope", scope, SCOPES)
    score = check_score(score)
    needed = "score='random'" if score == "random" and team is None else None
    source = make_generator(generator, seed, needed_for=needed)
    targets = find_targets(model, layers=layers, include=include, exclude=exclude)
    units = {target.name: units_of(target, granularity) for target in targets}
    if not any(u.count for u in units.values()):
        raise InvalidArgumentError("the chosen weights are all empty: there is nothing to prune")

    if team is not None and score == "random":
        with team.shared(source) as same:
            scores = _scores(targets, units, score, same, team)
    else:
        scores = _scores(targets, units, score, source, team)
    return units, [[s] for s in scores] if scope == "layer" else [scores]


def _scores(
    targets: Sequence[Target],
    units: Mapping[str, Units],
    score: Score,
    source: torch.Generator | None,
    team: Team | None,
) -> list[Scores]:
    if team is None or not team.sharded:
        return [score_units(target, units[target.name], score, source) for target in targets]
    from secateurs.ranks.scoring import score_parts

    return score_parts(targets, units, score, source, team)


def _chosen(
    groups: Sequence[Sequence[Scores]], p_prune: float, team: Team | None
) -> dict[str, torch.Tensor]:
    if team is not None and team.sharded:
        from secateurs.ranks.choosing import choose_parts

        return choose_parts(groups, p_prune, team)
    # All masks in one piece of memory, so that draws need not care for the number of tensors.
    masks = Marks.empty([scores.values for group in groups for scores in group]).masks
    chosen: dict[str, torch.Tensor] = {}
    for group in groups:
        marks = Marks(masks[len(chosen) : len(chosen) + len(group)])
        total = sum(scores.values.numel() for scores in group)
        # round() as in torch.nn.utils.prune: halves go to the even number.
        candidate_masks(group, round(p_prune * total), marks)
        chosen |= {scores.name: mask for scores, mask in zip(group, marks.masks, strict=True)}
    if team is not None:
        team.agree("select", {"the sum of the candidates (the weights must be equal)": _sum(masks)})
    return chosen


def _sum(masks: Sequence[torch.Tensor]) -> int:
    """A number that hardly two sets of masks have in common; made at the speed of reading them."""
    total = 0
    for (flat,) in joined([(flattened(mask),) for mask in masks]):
        words = flat.numel() // 8 * 8 if flat.data_ptr() % 8 == 0 else 0
        total += int(flat[:words].view(torch.int64).sum()) + int(flat[words:].sum())
    return total
