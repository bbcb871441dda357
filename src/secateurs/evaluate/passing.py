"""One pass over the data for all variants, which can stop anywhere and go on there."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from secateurs.evaluate.accuracy import Tally
from secateurs.evaluate.batches import is_sequential, read
from secateurs.evaluate.grid import Variant
from secateurs.evaluate.memory import Forward
from secateurs.evaluate.variants import Variants

SAVE_EVERY_SECONDS = 20.0


@dataclass(frozen=True)
class Progress:
    """How far one variant has come.

    Attributes:
        seen: position in the data set behind the last image it saw.
        achieved: ratio of target weights that are pruned in it.
        seconds: time spent on it.
        tally: its counts.
    """

    seen: int = 0
    achieved: float = 0.0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return vars(self) | {"tally": self.tally.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Progress":
        """Bring back what `to_dict` gave.

        Raises:
            TypeError, KeyError: it is something else.
        """
        fields: dict[str, Any] = {**values, "tally": Tally.from_dict(values["tally"])}
        return cls(**fields)


@dataclass
class Pass:
    """One pass over the data.

    Attributes:
        loader: batches of (images, labels).
        variants: the networks to evaluate on every batch.
        model: becomes each of them.
        forward: runs it.
        progress: how far each variant has come, by its key; filled and advanced by `run`.
        save: called with ``progress`` every now and then, and when the pass ends or breaks off.
        advance: called with the number of images that one more variant has seen.
    """

    loader: Iterable[Any]
    variants: Sequence[Variant]
    model: Variants
    forward: Forward
    progress: dict[str, Progress]
    save: Callable[[dict[str, Progress]], None]
    advance: Callable[[int], None]

    def run(self) -> None:
        """Finish the pass, from wherever each variant is."""
        resumable = is_sequential(self.loader)
        if not resumable:
            self.progress.clear()  # the same images cannot be found again
        for variant in self.variants:
            self.progress.setdefault(variant.key, Progress())
        saver = _Saver(self.progress, self.save if resumable else None)
        try:
            for start, stop in self._stretches():
                for variant, position, images, labels in self._steps(start, stop):
                    self._score(variant, position, images, labels)
                    saver.step()
        finally:
            saver.save()

    def _stretches(self) -> list[tuple[int, int | None]]:
        """Where to read: a pass that broke off inside a batch left some variants ahead."""
        marks = sorted({progress.seen for progress in self.progress.values()})
        return list(zip(marks, [*marks[1:], None], strict=True))

    def _steps(self, start: int, stop: int | None) -> Iterator[tuple[Variant, int, Tensor, Tensor]]:
        """Every batch of a stretch with every variant that has not seen it."""
        behind = [v for v in self.variants if self.progress[v.key].seen <= start]
        for position, (images, labels) in read(self.loader, start, stop):
            placed = self.forward.place(images)
            for variant in behind:
                yield variant, position, placed, labels

    def _score(self, variant: Variant, position: int, images: Tensor, labels: Tensor) -> None:
        began, before = time.perf_counter(), self.progress[variant.key]
        achieved, tally = before.achieved, replace(before.tally)
        if len(labels):
            achieved = self.model.become(variant)
            tally.add(self.forward(images), labels)
        seconds = before.seconds + time.perf_counter() - began
        # One assignment: an interrupt leaves a batch counted or not, never half.
        self.progress[variant.key] = Progress(position, achieved, seconds, tally)
        self.advance(position - before.seen)


class _Saver:
    """Saves in time: a step that takes as long as the last one still fits before the next save."""

    def __init__(
        self, progress: dict[str, Progress], save: Callable[[dict[str, Progress]], None] | None
    ):
        self._progress, self._save = progress, save
        self._saved = self._stepped = time.monotonic()

    def step(self) -> None:
        now = time.monotonic()
        took, self._stepped = now - self._stepped, now
        if now - self._saved + took > SAVE_EVERY_SECONDS:
            self.save()
            self._saved = now

    def save(self) -> None:
        if self._save is not None and any(each.seen for each in self._progress.values()):
            self._save(self._progress)
