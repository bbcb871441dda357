"""One pass over the data for all variants, which can stop anywhere and go on there."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from secateurs.errors import SecateursError
from secateurs.evaluation.batches import read, workers_watched
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.index_ranges import Stretch
from secateurs.evaluation.partial_results import Progress, united
from secateurs.evaluation.pruned_model import Variants

SAVE_EVERY_SECONDS = 20.0


@dataclass
class Pass:
    """One pass over the data, or over a part of it.

    Attributes:
        loader: batches of (images, labels).
        stretches: which images to read, and which variants see them.
        variants: the networks to evaluate on every batch.
        model: becomes each of them.
        forward: runs it.
        save: called every now and then, and when the pass ends or breaks off.
        advance: called with the number of images that one more variant has seen.
        progress: what each variant has done in this pass, by its key; filled by `run`.
    """

    loader: Iterable[Any]
    stretches: Sequence[Stretch]
    variants: Sequence[Variant]
    model: Variants
    forward: Forward
    save: Callable[[], None]
    advance: Callable[[int], None]
    progress: dict[str, Progress] = field(default_factory=dict[str, Progress])

    def run(self) -> None:
        """See all images of all stretches."""
        saver = Saver(self.save)
        with workers_watched():
            try:
                for stretch in self.stretches:
                    self._see(stretch, saver)
            finally:
                if any(each.seen for each in self.progress.values()):
                    self._save_surely()

    def _save_surely(self) -> None:
        try:
            self.save()
        except SecateursError:
            raise
        except RuntimeError:  # torch tells of a worker's death in whatever runs at that moment
            self.save()
            raise

    def _see(self, stretch: Stretch, saver: "Saver") -> None:
        behind = [variant for variant in self.variants if variant.key in stretch.keys]
        start = stretch.start
        for stop, (images, labels) in read(self.loader, start, stretch.stop):
            placed = self.forward.place(images)
            for variant in behind:
                self._score(variant, (start, stop), placed, labels)
                saver.step()
            start = stop

    def _score(
        self, variant: Variant, where: tuple[int, int], images: Tensor, labels: Tensor
    ) -> None:
        began = time.perf_counter()
        before = self.progress.get(variant.key, Progress())
        achieved, tally = before.achieved, replace(before.tally)
        if len(labels):
            achieved = self.model.become(variant)
            tally.add(self.forward(images), labels)
        seconds = before.seconds + time.perf_counter() - began
        done = united((*before.done, where))
        # One assignment: an interrupt leaves a batch counted or not, never half.
        self.progress[variant.key] = Progress(done, achieved, seconds, tally)
        self.advance(where[1] - where[0])


class Saver:
    """Saves in time: a step that takes as long as the last one still fits before the next save."""

    def __init__(self, save: Callable[[], None]):
        self._save = save
        self._saved = self._stepped = time.monotonic()

    def step(self) -> None:
        """Save if it is time."""
        now = time.monotonic()
        took, self._stepped = now - self._stepped, now
        if now - self._saved + took > SAVE_EVERY_SECONDS:
            self._save()
            self._saved = now
