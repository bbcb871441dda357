"""What became of the images of one job, batch by batch, as JSON can hold it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Hits:
    """One digit an image, 1 where the attack succeeded.

    Attributes:
        targeted: the network gave the class that was aimed at.
        untargeted: it did not give the true class.
    """

    targeted: str = ""
    untargeted: str = ""


@dataclass
class Outcome:
    """How far a job has come.

    Attributes:
        seen: images attacked.
        seconds: time that the attacks took, by step.
        hits: by step, then by the network's name.
        achieved: ratio of weights that a draw prunes.
    """

    seen: int = 0
    seconds: dict[int, float] = field(default_factory=dict[int, float])
    hits: dict[int, dict[str, Hits]] = field(default_factory=dict[int, dict[str, Hits]])
    achieved: float = 0.0

    def add(self, batch: "Outcome") -> None:
        """Take in another batch."""
        self.seen += batch.seen
        for step, seconds in batch.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        for step, networks in batch.hits.items():
            for name, new in networks.items():
                old = self.hits.setdefault(step, {}).setdefault(name, Hits())
                old.targeted += new.targeted
                old.untargeted += new.untargeted

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        hits = {
            str(step): {name: [each.targeted, each.untargeted] for name, each in networks.items()}
            for step, networks in self.hits.items()
        }
        seconds = {str(step): value for step, value in self.seconds.items()}
        return {
            "seen": self.seen,
            "seconds": seconds,
            "hits": hits,
            "achieved": self.achieved,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Outcome":
        """Bring back what `to_dict` gave.

        Raises:
            TypeError, KeyError, ValueError, AttributeError: it is something else.
        """
        return cls(
            seen=int(values["seen"]),
            seconds={int(step): float(value) for step, value in values["seconds"].items()},
            hits={
                int(step): {name: Hits(*pair) for name, pair in networks.items()}
                for step, networks in values["hits"].items()
            },
            achieved=float(values["achieved"]),
        )
