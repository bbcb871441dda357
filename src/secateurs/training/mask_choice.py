"""The masks of each step of a `Pruner`: what its schedule prunes, and what regrows."""

import glob
import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from secateurs._validation import check_ratio, check_seeded
from secateurs.criteria import Score, ScoreFunction
from secateurs.distributed.dtensor import local_of
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks.apply import matching_targets
from secateurs.masks.granularity import units_of
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.selection._select import choose
from secateurs.selection.layer_counts import counts_by_shares, erk_shares, least_kept
from secateurs.selection.selection_options import SelectionOptions
from secateurs.selection.unit_scores import raw_scores
from secateurs.training.mask_state import Change, combined, favoured, filled, kept_units
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth, Regrowth
from secateurs.training.schedules import Schedule


class MaskChoice:
    """Chooses the masks of each step: by score, at random, dropped and grown.

    Args:
        model: the network.
        schedule: when to prune, and to which ratio.
        regrow: how pruned weights come back; None if they do not.
        options: the criterion, granularity, scope, which parameters compete, and the seed of all
            random numbers: these depend on it and on the number of the step alone, so that no state
            of a generator needs to be saved.
        keep_at_least: the share of its units that each parameter keeps at least.
        masks: those in force.

    Attributes:
        ratio: the ratio of units that is pruned.
        put_off: whether the masks are to change as soon as gradients are finite.

    Raises:
        InvalidArgumentError: something draws random numbers, and there is no seed.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        regrow: Regrowth | None,
        options: SelectionOptions,
        keep_at_least: float,
        masks: Masks,
    ):
        self._model, self._schedule, self._regrow = model, schedule, regrow
        self._options, self._keep_at_least = options, keep_at_least
        self._units = sum(mask.units.count for mask in masks.units.values())
        kept = kept_units(masks, ModelContents(model).group.holders)
        self.ratio = (self._units - sum(kept.values())) / self._units
        self.put_off = False
        check_seeded(options.seed, self._draws())  # not at the first draw, amid the training

    def at(self, step: int, masks: Masks) -> Masks | None:
        """The masks from a step on; None if they do not change.

        Args:
            step: its number.
            masks: those in force.

        Raises:
            InvalidArgumentError: as `secateurs.select`, the schedule goes down, a parameter would
                keep nothing or too little, or a gradient is missing.
        """
        ratio, regrow = self._schedule.ratio_at(step), self._regrow
        new = None
        if ratio is not None:
            new = self._pruned_to(check_ratio("the schedule's ratio", ratio), step, masks)
        if isinstance(regrow, GradientRegrowth) and (self.put_off or regrow.due(step)):
            return self._regrown(regrow, step, new or masks) or new
        if (
            isinstance(regrow, MagnitudeRegrowth)
            and new is None
            and self.ratio
            and regrow.due(step)
            and self._happens(regrow.probability(step), step)
        ):
            return self._exchanged(ModelContents(self._model), masks, masks, regrow.margin, step)
        return new

    def _draws(self) -> Argument | None:
        """What draws random numbers at some step; None if nothing does."""
        regrow = self._regrow
        if not any(ratio for _, ratio in self._schedule.prunings):
            return None
        if isinstance(regrow, GradientRegrowth) and regrow.start != "score" and not self.ratio:
            return Argument("start", regrow.start)
        if isinstance(regrow, MagnitudeRegrowth) and regrow.gamma and regrow.power:
            return Argument("gamma", regrow.gamma)
        is_random = self._options.criterion.is_random
        return Argument("score", self._options.score) if is_random else None

    def _pruned_to(self, ratio: float, step: int, masks: Masks) -> Masks:
        if not ratio and not self.ratio and self._options.criterion.needs_data:
            return masks  # before the first step there may be no data to score by
        regrow, contents = self._regrow, ModelContents(self._model)
        down = round(ratio * self._units) < round(self.ratio * self._units)
        if down and not isinstance(regrow, MagnitudeRegrowth):
            raise InvalidArgumentError(
                f"the schedule goes down, from {self.ratio:.4g} to {ratio:.4g} at step {step}, and "
                f"pruned weights do not come back: begin at {self.ratio:.4g} or more, or call "
                "secateurs.restore(model) before"
            )
        if down and isinstance(regrow, MagnitudeRegrowth):
            change = favoured(masks, regrow.margin)
        else:
            change = filled(masks, -torch.inf, where_kept=False)
        start = regrow.start if isinstance(regrow, GradientRegrowth) else "score"
        if start != "score" and not self.ratio and ratio:
            new = self._at_random(contents, ratio, start, step)
        else:
            new = self._by_score(contents, ratio, self._score(step, change))
        if isinstance(regrow, MagnitudeRegrowth) and not down:
            new = self._exchanged(contents, masks, new, regrow.margin, step)
        self.ratio = ratio
        return new

    def _regrown(self, regrow: GradientRegrowth, step: int, masks: Masks) -> Masks | None:
        """Drop a share of each parameter's kept units, and grow as many."""
        contents = ModelContents(self._model)
        group = contents.group.holders
        targets = [target for target, _ in matching_targets(contents, masks)]
        missing = next((target.name for target in targets if target.parameter.grad is None), None)
        if missing is not None:
            raise InvalidArgumentError(
                f"{missing} has no gradient to grow by: call pruner.step() after "
                "loss.backward() and before optimizer.zero_grad(), and exclude what is not trained"
            )
        # On all ranks of a sharded model, since all change their masks together.
        finite = [torch.isfinite(local_of(t.grad.detach())).all() for t in targets]
        broken = sum(not bool(flag) for flag in finite)
        self.put_off = bool(group.sum(np.array([broken]))[0])
        if self.put_off:
            return None
        kept = kept_units(masks, group)
        counts = {n: k for n, count in kept.items() if (k := round(regrow.share(step) * count))}
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
        return Masks(new, group)

    def _exchanged(
        self, contents: ModelContents, masks: Masks, counts_of: Masks, margin: float, step: int
    ) -> Masks:
        """Prune as many units of each parameter as other masks do; see `MagnitudeRegrowth`."""
        kept = kept_units(counts_of, contents.group.holders)
        counts = {name: mask.units.count - kept[name] for name, mask in counts_of.units.items()}
        score = self._score(step, favoured(masks, margin))
        return self._by_counts(contents, masks, counts, score)

    def _by_score(self, contents: ModelContents, ratio: float, score: ScoreFunction) -> Masks:
        """Prune the units with the smallest scores, as far as `keep_at_least` allows."""
        masks = self._select(contents, ratio, score)
        short = self._short(contents, masks)
        if not short:
            return masks
        if not self._keep_at_least:
            name = next(iter(short))
            raise InvalidArgumentError(
                f"the ratio {ratio:g} prunes every weight of {name}, after which the network "
                "learns nothing: write ",
                Argument("keep_at_least", 0.01),
                ", so that every layer keeps 1%, or ",
                Argument("exclude", name),
                *(() if self._options.scope == "layer" else (", or ", Argument("scope", "layer"))),
            )
        counts, others = short, masks
        if self._options.scope != "layer":  # the other parameters lose as much more
            counts, others = self._refilled(contents, masks, ratio, short, score)
        found = masks.units | others.units
        found |= self._by_counts(contents, masks, counts, score).units
        return Masks(found, contents.group.holders)

    def _refilled(
        self,
        contents: ModelContents,
        masks: Masks,
        ratio: float,
        short: dict[str, int],
        score: ScoreFunction,
    ) -> tuple[dict[str, int], Masks]:
        """The counts of parameters that keep the least, and the masks of the others."""
        sizes = {name: mask.units.count for name, mask in masks.units.items()}
        total = round(ratio * sum(sizes.values()))
        counts: dict[str, int] = {}
        others = Masks({})
        while short:
            counts |= short
            rest = [name for name in masks if name not in counts]
            wanted, available = total - sum(counts.values()), sum(sizes[name] for name in rest)
            if wanted > available:
                least = sum(self._least(mask) for mask in masks.units.values())
                most = 1 - least / sum(sizes.values())
                raise InvalidArgumentError(
                    "with ",
                    Argument("keep_at_least", self._keep_at_least),
                    f" at most {most:.4g} can be pruned, not {ratio:g}: write a smaller one, or a "
                    "smaller ratio",
                )
            others = Masks({})
            if rest:
                others = self._select(contents, wanted / available, score, rest)
            short = self._short(contents, others)
        return counts, others

    def _least(self, mask: Mask) -> int:
        """How many units a parameter keeps at least."""
        return min(max(least_kept(self._keep_at_least, mask.units.count), 1), mask.units.count)

    def _short(self, contents: ModelContents, masks: Masks) -> dict[str, int]:
        """For each parameter that keeps too little, how many units may be pruned."""
        kept = kept_units(masks, contents.group.holders)
        return {
            name: mask.units.count - self._least(mask)
            for name, mask in masks.units.items()
            if kept[name] < self._least(mask)
        }

    def _at_random(self, contents: ModelContents, ratio: float, start: str, step: int) -> Masks:
        """Random masks; each parameter loses the same share (``"uniform"``) or one by ERK."""
        source = self._source(step)
        every = self._select(contents, 0.0, "magnitude")
        sizes = {name: mask.units.count for name, mask in every.units.items()}
        if start == "erk":
            shapes = {name: mask.units.shape for name, mask in every.units.items()}
            total = round(ratio * sum(sizes.values()))
            counts = counts_by_shares(sizes, total, sizes, erk_shares(shapes))
        else:
            counts = {name: round(ratio * size) for name, size in sizes.items()}
        counts = {name: min(counts[name], max(sizes[name] - 1, 0)) for name in sizes}
        return self._by_counts(contents, every, counts, "random", source)

    def _happens(self, probability: float, step: int) -> bool:
        """Whether an event with this probability happens at this step."""
        if probability >= 1:
            return True
        source = self._source(step)
        drawn = torch.rand((), generator=source, dtype=torch.float64, device="cpu")
        return bool(drawn < probability)

    def _score(self, step: int, change: Change) -> ScoreFunction:
        given, criterion = self._options, self._options.criterion
        source = self._source(step) if criterion.is_random else None

        def score(target: Target) -> torch.Tensor:
            # The caller's function may fail on one rank while the others wait in a collective.
            with nullcontext() if criterion.is_built_in else target.group.together():
                raw = raw_scores(target, units_of(target, given.granularity), criterion, source)
            values = raw.values.float() if raw.values.element_size() == 1 else raw.values
            return change(target, values.abs() if raw.absolute else values)

        return score

    def _source(self, step: int) -> torch.Generator:
        """A generator that the seed and the step determine."""
        seed = self._options.seed
        digest = hashlib.blake2b(f"{seed}, {step}".encode(), digest_size=7).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))

    def _by_counts(
        self,
        contents: ModelContents,
        like: Masks,
        counts: Mapping[str, int],
        score: Score,
        source: torch.Generator | None = None,
    ) -> Masks:
        """Prune a number of units of each parameter."""
        if not counts:
            return Masks({}, contents.group.holders)
        ratios = {n: count / max(like.units[n].units.count, 1) for n, count in counts.items()}
        return self._select(contents, ratios, score, source=source)

    def _select(
        self,
        contents: ModelContents,
        ratio: float | Mapping[str, float],
        score: Score,
        names: Sequence[str] = (),
        source: torch.Generator | None = None,
    ) -> Masks:
        """Prune a ratio of all parameters, or of those with these names, or of each a ratio."""
        options = replace(self._options, score=score, seed=None)
        if names := list(ratio) if isinstance(ratio, Mapping) else names:
            include = tuple(map(glob.escape, names))
            options = replace(options, include=include, exclude=None)
        return choose(contents, ratio, options, source, warn=False).draw()
