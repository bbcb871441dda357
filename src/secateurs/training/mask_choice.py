"""Which units are pruned while training: by score with a floor, at random, dropped and grown."""

import glob
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from secateurs._validation import make_generator
from secateurs.criteria import Score, ScoreFunction
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks.apply import local_mask
from secateurs.masks.granularity import units_of
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.selection._select import choose
from secateurs.selection.layer_counts import counts_by_shares, erk_shares, least_kept
from secateurs.selection.selection_options import SelectionOptions
from secateurs.selection.unit_scores import raw_scores
from secateurs.training.mask_state import combined, kept_units

Change = Callable[[Target, torch.Tensor], torch.Tensor]
"""Takes a target and the scores of its elements or units, and returns other scores."""

_Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class MaskChoice:
    """The options that decide which units are pruned, apart from the ratio.

    Attributes:
        names: the parameters that compete, in order.
        options: the criterion, granularity, scope, which parameters compete, and the seed of all
            random numbers.
        floor: the share of its units that each parameter keeps at least.
    """

    names: tuple[str, ...]
    options: SelectionOptions
    floor: float

    def by_score(
        self, contents: ModelContents, ratio: float, step: int, change: Change | None = None
    ) -> Masks:
        """Prune the units with the smallest scores, as far as the floor allows.

        Args:
            contents: of the network.
            ratio: of units, as for `secateurs.select`.
            step: random numbers depend on it and on the seed alone, so that no state of a generator
                needs to be saved.
            change: applied to the scores.

        Raises:
            InvalidArgumentError: as `secateurs.select`, or a parameter would keep nothing, or so
                much cannot be pruned above the floor.
        """
        score = self._score(step, change)
        masks = self._select(contents, ratio, None, score)
        short = self._short(contents, masks)
        if not short:
            return masks
        if not self.floor:
            name = next(iter(short))
            raise InvalidArgumentError(
                f"the ratio {ratio:g} prunes every weight of {name}, after which the network "
                "learns nothing: write ",
                Argument("floor", 0.01),
                ", so that every layer keeps 1%, or ",
                Argument("exclude", name),
                *(() if self.options.scope == "layer" else (", or ", Argument("scope", "layer"))),
            )
        if self.options.scope == "layer":
            found = self._by_counts(contents, masks, short, score)
            return Masks(masks.units | found.units, contents.group.holders)
        return self._fill_up(contents, masks, ratio, short, score)

    def at_random(self, contents: ModelContents, ratio: float, start: str, step: int) -> Masks:
        """Random masks; each parameter loses the same share (``"uniform"``) or one by ERK."""
        source = self._source(step, Argument("start", start))
        every = self._select(contents, 0.0, None, "magnitude")
        sizes = {name: mask.units.count for name, mask in every.units.items()}
        if start == "erk":
            shapes = {name: mask.units.shape for name, mask in every.units.items()}
            total = round(ratio * sum(sizes.values()))
            counts = counts_by_shares(sizes, total, sizes, erk_shares(shapes))
        else:
            counts = {name: round(ratio * size) for name, size in sizes.items()}
        counts = {name: min(counts[name], max(sizes[name] - 1, 0)) for name in sizes}
        return self._by_counts(contents, every, counts, "random", source)

    def drop_and_grow(
        self, contents: ModelContents, masks: Masks, share: float, step: int
    ) -> Masks:
        """Drop a share of each parameter's kept units, and grow as many; see `GradientRegrowth`."""
        kept = kept_units(masks, contents.group.holders)
        counts = {name: k for name, count in kept.items() if (k := round(share * count))}
        smallest = self._score(step, filled(masks, math.inf, where_kept=False))
        dropped = self._by_counts(contents, masks, counts, smallest).units
        remaining = Masks({n: combined(masks.units[n], dropped[n], both=True) for n in counts})
        not_kept = filled(remaining, math.inf, where_kept=True)

        def gradient(target: Target) -> torch.Tensor:
            return not_kept(target, target.grad.detach().abs().neg())

        # Pruning by these scores selects the largest gradients of what is not kept.
        selected = self._by_counts(contents, masks, counts, gradient).units
        new = dict(masks.units)
        for name in counts:
            grown = Mask(selected[name].keep.logical_not(), selected[name].units)
            new[name] = combined(remaining.units[name], grown, both=False)
        return Masks(new, contents.group.holders)

    def exchanged(
        self, contents: ModelContents, masks: Masks, counts_of: Masks, margin: float, step: int
    ) -> Masks:
        """Prune as many units of each parameter as other masks do; see `MagnitudeRegrowth`.

        Args:
            contents: of the network.
            masks: those in force.
            counts_of: masks that prune as many units of each parameter as wanted.
            margin: scores of the units that ``masks`` keep are multiplied by 1 + margin.
            step: see `by_score`.
        """
        kept = kept_units(counts_of, contents.group.holders)
        counts = {name: mask.units.count - kept[name] for name, mask in counts_of.units.items()}
        score = self._score(step, favoured(masks, margin))
        return self._by_counts(contents, masks, counts, score)

    def happens(self, probability: float, step: int) -> bool:
        """Whether an event with this probability happens at this step."""
        if probability >= 1:
            return True
        source = self._source(step, Argument("gamma"))
        drawn = torch.rand((), generator=source, dtype=torch.float64, device="cpu")
        return bool(drawn < probability)

    def _score(self, step: int, change: Change | None) -> ScoreFunction:
        given, criterion = self.options, self.options.criterion
        named = Argument("score", given.score)
        source = self._source(step, named) if criterion.is_random else None

        def score(target: Target) -> torch.Tensor:
            # The caller's function may fail on one rank while the others wait in a collective.
            with nullcontext() if criterion.is_built_in else target.group.together():
                raw = raw_scores(target, units_of(target, given.granularity), criterion, source)
            values = raw.values.float() if raw.values.element_size() == 1 else raw.values
            values = values.abs() if raw.absolute else values
            return values if change is None else change(target, values)

        return score

    def _source(self, step: int, needed_for: Argument) -> torch.Generator | None:
        """A generator that the seed and the step determine."""
        source = make_generator(None, self.options.seed, needed_for=needed_for)
        digest = hashlib.blake2b(f"{self.options.seed}, {step}".encode(), digest_size=7).digest()
        return source and source.manual_seed(int.from_bytes(digest, "big"))

    def _least(self, mask: Mask) -> int:
        """How many units a parameter keeps at least."""
        return min(max(least_kept(self.floor, mask.units.count), 1), mask.units.count)

    def _short(self, contents: ModelContents, masks: Masks) -> dict[str, int]:
        """For each parameter that keeps less than its floor, how many units may be pruned."""
        kept = kept_units(masks, contents.group.holders)
        return {
            name: mask.units.count - self._least(mask)
            for name, mask in masks.units.items()
            if kept[name] < self._least(mask)
        }

    def _fill_up(
        self,
        contents: ModelContents,
        masks: Masks,
        ratio: float,
        short: dict[str, int],
        score: ScoreFunction,
    ) -> Masks:
        """Prune ``short`` down to their floors only, and as much more of the other parameters."""
        sizes = {name: mask.units.count for name, mask in masks.units.items()}
        total = round(ratio * sum(sizes.values()))
        counts: dict[str, int] = {}
        others = masks
        while short:
            counts |= short
            rest = [name for name in self.names if name not in counts]
            wanted, available = total - sum(counts.values()), sum(sizes[name] for name in rest)
            if wanted > available:
                least = sum(self._least(mask) for mask in masks.units.values())
                most = 1 - least / sum(sizes.values())
                raise InvalidArgumentError(
                    "with ",
                    Argument("floor", self.floor),
                    f" at most {most:.4g} can be pruned, not {ratio:g}: write a smaller one, or a "
                    "smaller ratio",
                )
            others = Masks({})
            if rest:
                others = self._select(contents, wanted / available, rest, score)
            short = self._short(contents, others)
        found = self._by_counts(contents, masks, counts, score).units | others.units
        return Masks({name: found[name] for name in masks}, contents.group.holders)

    def _select(
        self,
        contents: ModelContents,
        ratio: float,
        names: Sequence[str] | None,
        score: Score,
        source: torch.Generator | None = None,
    ) -> Masks:
        """Prune a ratio of some parameters, or of all."""
        options = replace(self.options, score=score, seed=None)
        if names is not None:
            include = tuple(map(glob.escape, names))
            options = replace(options, include=include, exclude=None)
        return choose(contents, ratio, options, source, warn=False).draw()

    def _by_counts(
        self,
        contents: ModelContents,
        like: Masks,
        counts: Mapping[str, int],
        score: Score,
        source: torch.Generator | None = None,
    ) -> Masks:
        """Prune a number of units of each parameter."""
        found: dict[str, Mask] = {}
        for name, count in counts.items():
            ratio = count / max(like.units[name].units.count, 1)
            found |= self._select(contents, ratio, [name], score, source).units
        return Masks(found, contents.group.holders)


def filled(masks: Masks, value: float, *, where_kept: bool) -> Change:
    """Give all kept elements (or all pruned ones) the same score."""

    def fill(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(keep if where_kept else ~keep, value)

    return lambda target, scores: _changed(masks.units[target.name], target, scores, fill)


def favoured(masks: Masks, margin: float) -> Change:
    """Multiply the scores of kept elements by 1 + ``margin``."""

    def favour(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return torch.where(keep, scores * (1 + margin), scores)

    return lambda target, scores: _changed(masks.units[target.name], target, scores, favour)


def _changed(mask: Mask, target: Target, scores: torch.Tensor, rule: _Rule) -> torch.Tensor:
    """Change the scores on this rank; the result is a DTensor where the parameter is one."""
    units = mask.units
    if units.pooled and tuple(scores.shape) == units.unit:
        shard, keep = units.shard, mask.keep
    else:
        shard, keep = target.shard, local_mask(mask, target)
    here = shard.of(scores)
    return shard.as_dtensor(rule(here, keep.to(here.device).expand(here.shape)))
