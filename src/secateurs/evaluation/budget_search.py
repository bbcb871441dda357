"""The bisection of a budget: networks are scored against the dense one, image by image."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateurs._io.text import counted
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation.batches import why_no_images
from secateurs.evaluation.evaluation_loop import EvaluationLoop
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.index_ranges import ranges_left
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.metrics import flips
from secateurs.evaluation.paired_drop import claims, images_needed
from secateurs.evaluation.partial_results import Progress
from secateurs.pruning import global_prune, restore
from secateurs.repair.repaired_values import put_repaired_values
from secateurs.selection.selection_options import SelectionKeywords

STEPS = 100
"""Ratios are multiples of one STEPS-th."""

MOST_LOOKS = math.ceil(math.log2(STEPS))
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


@dataclass(frozen=True)
class TriedNetwork:
    """A network to score: the dense one for the ratio 0."""

    p_prune: float

    @property
    def is_dense(self) -> bool:
        """Whether this is the original network."""
        return self.p_prune == 0

    @property
    def key(self) -> str:
        """The name of this network in a progress file."""
        return "dense" if self.is_dense else repr(self.p_prune)


NETWORKS = [TriedNetwork(step / STEPS) for step in range(STEPS)]


class BudgetNetworks:
    """Turns a model into each network: pruned at a ratio, and repaired if asked, once.

    Args:
        model: the model, not pruned.
        options: how it is pruned.
        steps: of the repair.
        images: the calibration images, if it is repaired.
        kept: keeps the values of a repair, so that the network that is returned is the one that
            was scored.
    """

    def __init__(
        self,
        model: nn.Module,
        options: SelectionKeywords,
        steps: Sequence[str],
        images: Tensor | None,
        kept: KeptRepairs,
    ):
        self.model = model
        self._options, self._steps, self._images, self._kept = options, steps, images, kept
        self._now: TriedNetwork | None = None

    def become(self, variant: TriedNetwork) -> float:
        """Turn the model into a network; returns its ratio."""
        if variant != self._now:
            self.put_back()
            if not variant.is_dense:
                self._prune(variant)
            self._now = variant
        return variant.p_prune

    def put_back(self) -> None:
        """Restore the model, if it was turned into a network."""
        if self._now is not None:
            restore(self.model)
        self._now = None

    def _prune(self, network: TriedNetwork) -> None:
        global_prune(self.model, network.p_prune, **self._options)
        if self._images is None or not self._steps:
            return
        values = self._kept.get(network.key)
        if values is None:
            self._kept.repair(
                self.model, network.key, self._images, self._steps, p_prune=network.p_prune
            )
        else:
            put_repaired_values(self.model, values)


@dataclass
class BudgetSearch:
    """Finds the sparsest network that passes.

    Attributes:
        networks: the model.
        loader: batches of (images, labels).
        forward: runs the model.
        margin: the drop that is to be excluded, as a share.
        level: the probability of a wrong claim in one look.
        kept: the values of the repairs.
        progress: what was scored, by the network's key; networks of an earlier run included.
        save: called from time to time, and when a network is done.
        save_every: seconds between two saves.
        advance: called with the number of images that were scored.
    """

    networks: BudgetNetworks
    loader: Iterable[Any]
    forward: Forward
    margin: float
    level: float
    kept: KeptRepairs
    progress: dict[str, Progress]
    save: Callable[[], None]
    save_every: float
    advance: Callable[[int], None]

    def score_dense(self) -> str:
        """Score the dense network on all images: a digit for each, 1 where it is right."""
        digits = self._scored(NETWORKS[0], lambda _: False)
        if not digits:
            raise InvalidArgumentError(f"{why_no_images(self.loader)}: there is nothing to score")
        return digits

    def run(self, dense: str) -> list[Look]:
        """Bisect; returns the ratios that were tried, in order.

        Args:
            dense: the outcomes of the dense network.
        """
        looks: list[Look] = []
        low, high = 0, STEPS
        while high - low > 1:
            middle = (low + high) // 2
            looks.append(self._look(NETWORKS[middle], dense))
            low, high = (middle, high) if looks[-1].passed else (low, middle)
            self.kept.clear(but=NETWORKS[low].key)
        self.networks.put_back()
        return looks

    def _look(self, network: TriedNetwork, dense: str) -> Look:
        """Score a network as long as it can still pass."""

        def can_pass(digits: str) -> bool:
            lost, won = flips(dense, digits)
            hopes = dense.count("0", len(digits))
            return claims(lost, won + hopes, len(dense), self.margin, self.level)

        digits = self._scored(network, lambda digits: not can_pass(digits))
        passed = can_pass(digits)
        if len(digits) > len(dense) or (passed and len(digits) < len(dense)):
            raise FailureError(
                f"the loader gave {counted(len(dense), 'image')} in one pass and {len(digits)} "
                "in another: use a DataLoader that does not shuffle"
            )
        return Look(network.p_prune, len(digits), *flips(dense, digits), passed)

    def _scored(self, network: TriedNetwork, enough: Callable[[str], bool]) -> str:
        """Score a network on the images that are left, until these outcomes are enough."""

        def outcomes() -> str:
            return "".join(self.progress.get(network.key, Progress()).hits)

        EvaluationLoop(
            loader=self.loader,
            ranges=ranges_left(self.loader, self.progress, [network.key]),
            variants=[network],
            model=self.networks,
            forward=self.forward,
            save=self.save,
            advance=self.advance,
            save_every=self.save_every,
            progress=self.progress,
            enough=lambda: enough(outcomes()),
        ).run()
        return outcomes()
