"""One loop over the images for all variants, which can be interrupted and continued."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from secateurs.errors import SecateursError
from secateurs.evaluation.batches import read, workers_watched
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.index_ranges import IndexRange
from secateurs.evaluation.partial_results import Progress, merged
from secateurs.evaluation.pruned_model import Variants

SAVE_EVERY_SECONDS = 20.0


@dataclass
class EvaluationLoop:
    """Scores variants on every batch of some ranges of images.

    Attributes:
        loader: batches of (images, labels).
        ranges: which images to read, and which variants are scored on them.
        variants: the networks to score.
        model: becomes each of them.
        forward: runs it.
        save: called about every ``save_every`` seconds, and when the loop ends or is interrupted.
        advance: called with the number of images that one more variant was scored on.
        save_every: seconds between two saves.
        progress: what each variant has done in this loop, by its key; filled by `run`.
    """

    loader: Iterable[Any]
    ranges: Sequence[IndexRange]
    variants: Sequence[Variant]
    model: Variants
    forward: Forward
    save: Callable[[], None]
    advance: Callable[[int], None]
    save_every: float = SAVE_EVERY_SECONDS
    progress: dict[str, Progress] = field(default_factory=dict[str, Progress])

    def run(self) -> None:
        """Score the variants on all images of all ranges."""
        self._saved = self._stepped = time.monotonic()
        with workers_watched():
            try:
                for each in self.ranges:
                    self._score_range(each)
            finally:
                if any(each.seen for each in self.progress.values()):
                    self._save_surely()

    def _save_surely(self) -> None:
        try:
            self.save()
        except SecateursError:
            raise
        except RuntimeError:  # torch raises a worker's death in whatever runs at that moment
            self.save()
            raise

    def _save_in_time(self) -> None:
        """Save if another step as long as the last one would end after ``save_every`` seconds."""
        now = time.monotonic()
        took, self._stepped = now - self._stepped, now
        if now - self._saved + took > self.save_every:
            self.save()
            self._saved = now

    def _score_range(self, images: IndexRange) -> None:
        missing = [variant for variant in self.variants if variant.key in images.keys]
        start = images.start
        for stop, (batch, labels) in read(self.loader, start, images.stop):
            on_device = self.forward.to_device(batch)
            for variant in missing:
                self._score(variant, (start, stop), on_device, labels)
                self._save_in_time()
            start = stop

    def _score(
        self, variant: Variant, indices: tuple[int, int], images: Tensor, labels: Tensor
    ) -> None:
        began = time.perf_counter()
        before = self.progress.get(variant.key, Progress())
        achieved, tally = before.achieved, replace(before.tally)
        if len(labels):
            achieved = self.model.become(variant)
            tally.add(self.forward(images), labels)
        seconds = before.seconds + time.perf_counter() - began
        done = merged((*before.done, indices))
        # One assignment: after an interrupt a batch is counted or not, never in part.
        self.progress[variant.key] = Progress(done, achieved, seconds, tally)
        self.advance(indices[1] - indices[0])
