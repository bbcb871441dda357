"""The outcomes of the images of one job, and their form in the progress file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from secateurs._io.json_objects import (
    BrokenJSONError,
    as_number,
    as_object,
    as_text,
    as_whole,
    member,
    two,
)
from secateurs._io.text import quoted


@dataclass
class Hits:
    """A digit for each image, 1 where the attack succeeded.

    Attributes:
        targeted: the network predicted the target class.
        untargeted: it did not predict the true class.
    """

    targeted: str = ""
    untargeted: str = ""


@dataclass
class Outcome:
    """The progress of a job.

    Attributes:
        seen: number of images that were attacked.
        seconds: duration of the attacks, by step.
        hits: by step, then by the network's name.
        achieved: ratio of prunable weights that a draw prunes.
    """

    seen: int = 0
    seconds: dict[int, float] = field(default_factory=dict[int, float])
    hits: dict[int, dict[str, Hits]] = field(default_factory=dict[int, dict[str, Hits]])
    achieved: float = 0.0

    def add(self, batch: "Outcome") -> None:
        """Add the outcome of another batch."""
        self.seen += batch.seen
        for step, seconds in batch.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        for step, networks in batch.hits.items():
            for name, new in networks.items():
                old = self.hits.setdefault(step, {}).setdefault(name, Hits())
                old.targeted += new.targeted
                old.untargeted += new.untargeted

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        hits = {
            str(step): {name: [each.targeted, each.untargeted] for name, each in networks.items()}
            for step, networks in self.hits.items()
        }
        seconds = {str(step): value for step, value in self.seconds.items()}
        return vars(self) | {"seconds": seconds, "hits": hits}

    @classmethod
    def from_dict(cls, values: Any) -> "Outcome":
        """Read what `to_dict` wrote."""
        steps = as_object(member(values, "hits"))
        return cls(
            seen=as_whole(member(values, "seen")),
            seconds={
                _step(step): as_number(value)
                for step, value in as_object(member(values, "seconds")).items()
            },
            hits={
                _step(step): {
                    name: Hits(*map(as_text, two(pair)))
                    for name, pair in as_object(networks).items()
                }
                for step, networks in steps.items()
            },
            achieved=as_number(member(values, "achieved"), most=1.0),
        )

    def check(
        self,
        steps: Sequence[int],
        networks: Sequence[str],
        *,
        total: int,
        batch_size: int,
        targeted: bool,
    ) -> None:
        """Check that this can be the progress of a job."""
        if as_whole(self.seen, most=total) % batch_size and self.seen < total:
            raise BrokenJSONError(f"it has seen {self.seen} images, not batches of {batch_size}")
        if not self.seen and not self.hits:
            return
        if not set(steps) == set(self.hits) == set(self.seconds):
            raise BrokenJSONError("it is about other steps")
        for found in self.hits.values():
            if set(found) != set(networks):
                raise BrokenJSONError("it is about other networks")
            for hits in found.values():
                lengths = (self.seen if targeted else 0, self.seen)
                if (len(hits.targeted), len(hits.untargeted)) != lengths or (
                    hits.targeted + hits.untargeted
                ).strip("01"):
                    raise BrokenJSONError(f"it does not say what became of {self.seen} images")


def _step(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BrokenJSONError(f"{quoted(text)} is not a step")
    return int(text)
