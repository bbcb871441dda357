"""One pass over the data for all variants, which can stop anywhere and go on there."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from secateurs.evaluate.accuracy import Tally
from secateurs.evaluate.batches import batches, is_sequential
from secateurs.evaluate.grid import Variant
from secateurs.evaluate.memory import Forward
from secateurs.evaluate.variants import Variants

SAVE_EVERY_SECONDS = 20.0


@dataclass
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
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """Bring back what `to_dict` gave."""
        rest: dict[str, Any] = {name: value for name, value in values.items() if name != "tally"}
        return cls(**rest, tally=Tally.from_dict(values["tally"]))


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
        if not is_sequential(self.loader):
            self.progress.clear()  # the same images cannot be found again
        for variant in self.variants:
            self.progress.setdefault(variant.key, Progress())
        try:
            for start, stop in self._stretches():
                self._stretch(start, stop)
        finally:
            if is_sequential(self.loader):
                self.save(self.progress)

    def _stretches(self) -> list[tuple[int, int | None]]:
        """Where to read: a pass that broke off inside a batch left some variants ahead."""
        marks = sorted({progress.seen for progress in self.progress.values()})
        return list(zip(marks, [*marks[1:], None], strict=True))

    def _stretch(self, start: int, stop: int | None) -> None:
        behind = [v for v in self.variants if self.progress[v.key].seen <= start]
        saved = time.monotonic()
        for position, (images, labels) in batches(self.loader, start, stop):
            for variant in behind:
                self._score(variant, images, labels)
                self.progress[variant.key].seen = position
                if is_sequential(self.loader) and time.monotonic() - saved > SAVE_EVERY_SECONDS:
                    self.save(self.progress)
                    saved = time.monotonic()

    def _score(self, variant: Variant, images: Any, labels: Any) -> None:
        began, progress = time.perf_counter(), self.progress[variant.key]
        progress.achieved = self.model.become(variant)
        if len(labels):
            progress.tally.add(self.forward(images), labels.to(self.forward.device))
        progress.seconds += time.perf_counter() - began
        self.advance(len(labels))
