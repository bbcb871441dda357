"""One loop over the images for all variants, which can be interrupted and continued."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from secateurs.errors import SecateursError
from secateurs.evaluation.batches import read, workers_watched
from secateurs.evaluation.calibration_overlap import CalibrationOverlap
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.metrics import Tally, classes_of
from secateurs.evaluation.partial_results import IndexRange, Progress

SAVE_EVERY_SECONDS = 20.0

DENSE = "dense"
"""The key of the original network among the networks that are scored."""

BesideDense = Literal[False, True, "labels"]


@dataclass
class EvaluationLoop:
    """Scores variants on every batch of some ranges of images.

    Attributes:
        loader: batches of (images, labels).
        ranges: which images to read, and which variants are scored on them.
        variants: the networks to score, each by its name in a progress file.
        become: turns the model into one of them, and returns the ratio of prunable weights that
            are pruned in it.
        forward: runs the model.
        save: called about every ``save_every`` seconds, and when the loop ends or is interrupted.
        advance: called with the number of images that one more variant was scored on.
        save_every: seconds between two saves.
        progress: what each variant was scored on in this loop, by its key; filled by `run`.
        beside_dense: whether also agreement with the dense network and divergence from it are
            counted; ``"labels"`` also puts the dense network's classes in place of the labels. One
            of the variants must then be the dense one, `DENSE`.
        enough: called after each batch; where it returns True, the loop ends.
        calibration: images that must not be among those that are scored.
    """

    loader: Iterable[Any]
    ranges: Sequence[IndexRange]
    variants: Mapping[str, Any]
    become: Callable[[Any], float]
    forward: Forward
    save: Callable[[], None]
    advance: Callable[[int], None]
    save_every: float = SAVE_EVERY_SECONDS
    progress: dict[str, Progress] = field(default_factory=dict[str, Progress])
    beside_dense: BesideDense = False
    enough: Callable[[], bool] = lambda: False
    calibration: Tensor | None = None

    def run(self) -> None:
        """Score the variants on all images of all ranges."""
        self._saved = self._stepped = time.monotonic()
        self._overlap = CalibrationOverlap(self.calibration)
        with workers_watched():
            try:
                for each in self.ranges:
                    if self.enough():
                        break
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
        missing = [key for key in self.variants if key in images.keys]
        start = images.start
        for stop, (batch, labels) in read(self.loader, start, images.stop):
            self._overlap.refuse(batch)
            on_device = self.forward.to_device(batch)
            dense = None
            if self.beside_dense and len(labels):
                self.become(self.variants[DENSE])
                dense = self.forward(on_device)
                labels = classes_of(dense).cpu() if self.beside_dense == "labels" else labels
            for key in missing:
                self._score(key, (start, stop), on_device, labels, dense)
                self._save_in_time()
            if self.enough():
                return
            start = stop

    def _score(
        self,
        key: str,
        indices: tuple[int, int],
        images: Tensor,
        labels: Tensor,
        dense: Tensor | None,
    ) -> None:
        began = time.perf_counter()
        achieved, tally, hits = 0.0, Tally(), ""
        if len(labels):
            achieved = self.become(self.variants[key])
            known = dense if key == DENSE else None
            logits = self.forward(images) if known is None else known
            hits = tally.add(logits, labels, dense)
        batch = Progress((indices,), achieved, time.perf_counter() - began, tally, (hits,))
        # One assignment: after an interrupt a batch is counted or not, never in part.
        self.progress[key] = self.progress.get(key, Progress()).plus(batch)
        self.advance(indices[1] - indices[0])
