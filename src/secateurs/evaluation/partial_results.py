"""How far a sweep has come, in a form from which any number of ranks can go on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from secateurs._io.json_objects import BrokenJSONError, as_list, as_number, as_whole, member, two
from secateurs.evaluation.metrics import Tally

Done = tuple[tuple[int, int], ...]
"""Stretches of positions in the data set: ascending, apart from each other."""


@dataclass(frozen=True)
class Progress:
    """How far one variant has come.

    Attributes:
        done: the stretches of positions in the data set that it has seen.
        achieved: ratio of target weights that are pruned in it.
        seconds: time spent on it, on all ranks together.
        tally: its counts.
    """

    done: Done = ()
    achieved: float = 0.0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)

    @property
    def seen(self) -> int:
        """How many positions it has seen."""
        return sum(stop - start for start, stop in self.done)

    def plus(self, other: "Progress") -> "Progress":
        """This and what the same variant did on other images."""
        return Progress(
            done=united((*self.done, *other.done)),
            achieved=max(self.achieved, other.achieved),  # 0 where it has not been made yet
            seconds=self.seconds + other.seconds,
            tally=self.tally.plus(other.tally),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return vars(self) | {"tally": self.tally.to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Bring back what `to_dict` gave.

        Raises:
            BrokenJSONError: it is something else, or says what cannot be, such as more images
                scored than seen.
        """
        progress = cls(
            done=_stretches(member(values, "done")),
            achieved=as_number(member(values, "achieved"), most=1.0),
            seconds=as_number(member(values, "seconds")),
            tally=Tally.from_dict(member(values, "tally")),
        )
        as_whole(progress.tally.count, most=progress.seen)  # fewer where some are unreadable
        return progress


def _stretches(value: Any) -> Done:
    result: list[tuple[int, int]] = []
    for start, stop in (two(pair) for pair in as_list(value)):
        first = as_whole(start, least=result[-1][1] if result else 0)
        result.append((first, as_whole(stop, least=first)))
    return tuple(result)


def united(stretches: Iterable[tuple[int, int]]) -> Done:
    """The same positions in as few stretches as can be.

    Example:
        >>> united([(8, 16), (0, 8), (24, 32)])
        ((0, 16), (24, 32))
    """
    result: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if result and start <= result[-1][1]:
            start, stop = result[-1][0], max(stop, result.pop()[1])
        result.append((start, stop))
    return tuple(result)


def added(parts: Iterable[Mapping[str, Progress]]) -> dict[str, Progress]:
    """What several ranks, or several runs, have done together, by variant."""
    result: dict[str, Progress] = {}
    for part in parts:
        for key, progress in part.items():
            result[key] = result[key].plus(progress) if key in result else progress
    return result


def read_progress(
    saved: Mapping[str, Any], keys: Iterable[str], total: int | None
) -> dict[str, Progress]:
    """What was saved for these variants, those that have begun.

    Args:
        saved: what the file holds.
        keys: the variants.
        total: how many images there are, if that is known.

    Raises:
        BrokenJSONError: another version or another tool wrote it.
    """
    found = {key: Progress.from_dict(saved[key]) for key in keys if key in saved}
    for each in found.values():
        if total is not None and each.done and each.done[-1][1] > total:
            raise BrokenJSONError(f"it has seen {each.done[-1][1]} of {total} images")
    return found
