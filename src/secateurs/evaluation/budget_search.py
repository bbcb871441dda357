"""The bisection of a budget: networks are scored against the dense one, image by image."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateurs._io.text import counted
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation.batches import why_no_images
from secateurs.evaluation.evaluation_loop import DENSE, EvaluationLoop
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.metrics import flips
from secateurs.evaluation.paired_drop import claims, images_needed
from secateurs.evaluation.partial_results import Progress, ranges_left
from secateurs.pruning import global_prune, restore
from secateurs.repair.repaired_values import put_repaired_values
from secateurs.selection.selection_options import SelectionKeywords

RATIOS = [step / 100 for step in range(100)]
"""The ratios that may be tried; at the first one the network is dense."""

MOST_LOOKS = math.ceil(math.log2(len(RATIOS)))
"""How often a bisection looks at the same images, at most."""


@dataclass(frozen=True)
class Look:
    """A ratio that was tried.

    Attributes:
        p_prune: the ratio of units.
        count: images that it was scored on; fewer than all where it could not pass any more.
        lost: of them, images that the dense network gets right and this one wrong.
        won: of them, images that it gets wrong and this one right.
        passed: whether the drop is below the margin, with the confidence that was asked for.
    """

    p_prune: float
    count: int
    lost: int
    won: int
    passed: bool

    def needed(self, margin: float, level: float) -> int | None:
        """About how many images would show a drop below the margin, if others flip like these.

        None unless the drop on these images is below the margin by one standard error or more.
        """
        lost, won = self.lost / self.count, self.won / self.count
        drop = lost - won
        error = math.sqrt(max(lost + won - drop * drop, 0.0) / self.count)
        return images_needed(lost, won, margin, level) if drop + error <= margin else None


def key_of(p_prune: float) -> str:
    """The name of a network in a progress file."""
    return repr(p_prune) if p_prune else DENSE


@dataclass
class BudgetSearch:
    """Finds the sparsest network that passes.

    Attributes:
        model: the model, not pruned.
        options: how it is pruned.
        repair: steps of the repair.
        images: the calibration images, if it is repaired.
        kept: keeps the values of a repair, so that the network that is returned is the one that
            was scored.
        loader: batches of (images, labels).
        forward: runs the model.
        margin: the drop that is to be excluded, as a share.
        level: the probability of a wrong claim in one look.
        progress: what was scored, by the network's key; networks of an earlier run included.
        save: called from time to time, and when a network is done.
        save_every: seconds between two saves.
        advance: called with the number of images that were scored.
    """

    model: nn.Module
    options: SelectionKeywords
    repair: Sequence[str]
    images: Tensor | None
    kept: KeptRepairs
    loader: Iterable[Any]
    forward: Forward
    margin: float
    level: float
    progress: dict[str, Progress]
    save: Callable[[], None]
    save_every: float
    advance: Callable[[int], None]

    def score_dense(self) -> str:
        """Score the dense network on all images: a digit for each, 1 where it is right."""
        digits = self._scored(0.0, lambda _: False)
        if not digits:
            raise InvalidArgumentError(f"{why_no_images(self.loader)}: there is nothing to score")
        return digits

    def run(self, dense: str) -> list[Look]:
        """Bisect with the outcomes of `score_dense`; returns what was tried, in order."""
        looks: list[Look] = []
        low, high = 0, len(RATIOS)
        while high - low > 1:
            middle = (low + high) // 2
            looks.append(self._look(RATIOS[middle], dense))
            low, high = (middle, high) if looks[-1].passed else (low, middle)
            self.kept.clear(but=key_of(RATIOS[low]))
        return looks

    def prune(self, p_prune: float) -> None:
        """Prune the model, which is not repaired; and repair it if asked, the first time."""
        global_prune(self.model, p_prune, **self.options)
        if self.images is None or not self.repair:
            return
        key = key_of(p_prune)
        values = self.kept.get(key)
        if values is None:
            self.kept.repair(self.model, key, self.images, self.repair, p_prune=p_prune)
        else:
            put_repaired_values(self.model, values)

    def _look(self, p_prune: float, dense: str) -> Look:
        """Score a network as long as it can still pass."""

        def can_pass(digits: str) -> bool:
            lost, won = flips(dense, digits)
            most = won + dense.count("0", len(digits))  # if all that are left are right
            return claims(lost, most, len(dense), self.margin, self.level)

        digits = self._scored(p_prune, lambda digits: not can_pass(digits))
        passed = can_pass(digits)
        if len(digits) > len(dense) or (passed and len(digits) < len(dense)):
            raise FailureError(
                f"the loader gave {counted(len(dense), 'image')} in one pass and {len(digits)} "
                "in another: use a DataLoader that does not shuffle"
            )
        return Look(p_prune, len(digits), *flips(dense, digits), passed)

    def _scored(self, p_prune: float, enough: Callable[[str], bool]) -> str:
        """Score a network on the images that are left, until these outcomes are enough."""
        key = key_of(p_prune)

        def outcomes() -> str:
            return "".join(self.progress.get(key, Progress()).hits)

        ranges = ranges_left(self.loader, self.progress, [key])
        if not ranges or enough(outcomes()):
            return outcomes()  # of an earlier run
        restore(self.model)
        if p_prune:
            self.prune(p_prune)
        EvaluationLoop(
            loader=self.loader,
            ranges=ranges,
            variants={key: p_prune},
            become=lambda ratio: ratio,  # the model is this network already
            forward=self.forward,
            save=self.save,
            advance=self.advance,
            save_every=self.save_every,
            progress=self.progress,
            enough=lambda: enough(outcomes()),
            calibration=self.images,
        ).run()
        return outcomes()
