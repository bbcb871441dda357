"""Which units are pruned while training: by score with a floor, at random, dropped and grown."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from secateurs._validation import make_generator
from secateurs.criteria import Score, ScoreFunction, raw_scores
from secateurs.errors import InvalidArgumentError
from secateurs.masks._sparsity import count_nonzero
from secateurs.masks.granularity import units_of
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.target import Target
from secateurs.selection._select import SelectOptions, choose
from secateurs.training.erk import erk_counts
from secateurs.training.score_changes import Change, combined, filled


@dataclass(frozen=True)
class MaskChoice:
    """What decides which units are pruned, apart from the ratio.

    Attributes:
        names: the parameters that compete, in order.
        score: as for `secateurs.select`.
        options: the other arguments of `secateurs.select`: granularity, scope, and what competes.
        floor: the share of its units that each parameter keeps at least.
        seed: of everything random.
    """

    names: tuple[str, ...]
    score: Score
    options: SelectOptions
    floor: float
    seed: int | None

    def by_score(
        self, model: nn.Module, ratio: float, step: int, change: Change | None = None
    ) -> Masks:
        """Prune the units with the smallest scores, as far as the floor lets.

        Args:
            model: the network.
            ratio: of units, as for `secateurs.select`.
            step: what is random depends on the seed and on this, so that nothing is to be saved.
            change: applied to the scores.

        Raises:
            InvalidArgumentError: as `secateurs.select`, or a parameter would keep nothing, or the
                floor leaves too little to prune.
        """
        score = self._score(step, change)
        masks = self._select(model, ratio, None, score)
        short = self._short(masks)
        if not short:
            return masks
        if not self.floor:
            name = next(iter(short))
            raise InvalidArgumentError(
                f"the ratio {ratio:g} prunes every weight of {name}, after which the network "
                f"learns nothing: write floor=0.01, so that every layer keeps 1%, or "
                f"exclude={name!r}, or scope='layer'"
            )
        if self.options.get("scope") == "layer":
            return Masks(masks.units | self._by_counts(model, masks, short, score).units)
        return self._fill_up(model, masks, ratio, short, score)

    def at_random(self, model: nn.Module, ratio: float, start: str, step: int) -> Masks:
        """Random masks that prune the same share of each parameter (uniform), or one by ERK."""
        source = self._source(step, f"start={start!r}")
        every = self._select(model, 0.0, None, "magnitude")
        sizes = {name: mask.units.count for name, mask in every.units.items()}
        if start == "erk":
            shapes = {name: mask.units.shape for name, mask in every.units.items()}
            counts = erk_counts(shapes, sizes, ratio)
        else:
            counts = {name: round(ratio * size) for name, size in sizes.items()}
        counts = {name: min(counts[name], max(sizes[name] - 1, 0)) for name in sizes}
        return self._by_counts(model, every, counts, "random", source)

    def drop_and_grow(self, model: nn.Module, masks: Masks, share: float, step: int) -> Masks:
        """Drop a share of each parameter's kept units, and grow as many; see `GradientRegrowth`."""
        kept = zip(masks, count_nonzero([m.keep for m in masks.units.values()]), strict=True)
        counts = {name: k for name, count in kept if (k := round(share * count))}
        smallest = self._score(step, filled(masks, math.inf, where_kept=False))
        dropped = self._by_counts(model, masks, counts, smallest).units
        left = Masks({n: combined(masks.units[n], dropped[n], both=True) for n in counts})
        growing = filled(left, math.inf, where_kept=True)

        def gradient(target: Target) -> torch.Tensor:
            return growing(target, target.grad.detach().abs().neg())

        # The smallest of these scores are the largest gradients of what is not kept.
        others = self._by_counts(model, masks, counts, gradient).units
        new = dict(masks.units)
        for name in counts:
            grown = Mask(others[name].keep.logical_not(), others[name].units)
            new[name] = combined(left.units[name], grown, both=False)
        return Masks(new)

    def happens(self, probability: float, step: int) -> bool:
        """Whether something happens at a step that does with a probability."""
        if probability >= 1:
            return True
        source = self._source(step, "gamma above 0")
        return bool(torch.rand((), generator=source, dtype=torch.float64) < probability)

    def _score(self, step: int, change: Change | None) -> ScoreFunction:
        source = self._source(step, "score='random'") if self.score == "random" else None

        def score(target: Target) -> torch.Tensor:
            raw = raw_scores(
                target,
                units_of(target, self.options.get("granularity", "weight")),
                self.score,
                source,
            )
            values = raw.values.float() if raw.values.element_size() == 1 else raw.values
            values = values.abs() if raw.absolute else values
            return values if change is None else change(target, values)

        return score

    def _source(self, step: int, needed_for: str) -> torch.Generator | None:
        """A generator that the seed and the step determine."""
        source = make_generator(None, self.seed, needed_for=needed_for)
        digest = hashlib.blake2b(f"{self.seed}, {step}".encode(), digest_size=7).digest()
        return source and source.manual_seed(int.from_bytes(digest, "big"))

    def _least(self, mask: Mask) -> int:
        return min(max(math.ceil(self.floor * mask.units.count), 1), mask.units.count)

    def _short(self, masks: Masks) -> dict[str, int]:
        """How many units may be pruned at most, of the parameters of which more are pruned."""
        kept = count_nonzero([mask.keep for mask in masks.units.values()])
        rows = zip(masks.units.items(), kept, strict=True)
        return {
            name: mask.units.count - self._least(mask)
            for (name, mask), count in rows
            if count < self._least(mask)
        }

    def _fill_up(
        self,
        model: nn.Module,
        masks: Masks,
        ratio: float,
        short: dict[str, int],
        score: ScoreFunction,
    ) -> Masks:
        """Let those that are short keep their floor, and prune as much more of the others."""
        sizes = {name: mask.units.count for name, mask in masks.units.items()}
        total = round(ratio * sum(sizes.values()))
        counts: dict[str, int] = {}
        others = masks
        while short:
            counts |= short
            rest = [name for name in self.names if name not in counts]
            left, there = total - sum(counts.values()), sum(sizes[name] for name in rest)
            if left > there or (left and not there):
                least = sum(self._least(mask) for mask in masks.units.values())
                most = 1 - least / sum(sizes.values())
                raise InvalidArgumentError(
                    f"with floor={self.floor:g} at most {most:.4g} can be pruned, not {ratio:g}: "
                    "write a smaller floor or a smaller ratio"
                )
            others = self._select(model, left / there, rest, score) if rest else Masks({})
            short = self._short(others)
        found = self._by_counts(model, masks, counts, score).units | others.units
        return Masks({name: found[name] for name in masks})

    def _select(
        self,
        model: nn.Module,
        ratio: float,
        names: Sequence[str] | None,
        score: Score,
        source: torch.Generator | None = None,
    ) -> Masks:
        """Prune a ratio of some parameters, or of all."""
        options = SelectOptions(**self.options)
        if names is not None:
            options |= {"include": [_exactly(name) for name in names], "exclude": None}
        options |= {"score": score, "generator": source}
        return choose(model, ratio, warn=False, **options).draw()

    def _by_counts(
        self,
        model: nn.Module,
        like: Masks,
        counts: Mapping[str, int],
        score: Score,
        source: torch.Generator | None = None,
    ) -> Masks:
        """Prune a number of units of each parameter."""
        found: dict[str, Mask] = {}
        for name, count in counts.items():
            ratio = count / max(like.units[name].units.count, 1)
            found |= self._select(model, ratio, [name], score, source).units
        return Masks(found)


def _exactly(name: str) -> str:
    """A pattern that matches a name and nothing else."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
