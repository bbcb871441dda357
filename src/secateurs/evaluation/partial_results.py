"""The progress of a sweep, from which any number of ranks can continue."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from secateurs._io.json_objects import (
    BrokenJSONError,
    as_list,
    as_number,
    as_text,
    as_whole,
    member,
    two,
)
from secateurs.evaluation.metrics import Tally
from secateurs.results.image_outcomes import packed, unpacked

Done = tuple[tuple[int, int], ...]
"""Ranges of indices in the data set, [start, stop): ascending, not adjacent."""


@dataclass(frozen=True)
class Progress:
    """The progress of one variant.

    Attributes:
        done: the ranges of indices in the data set that it was scored on.
        achieved: ratio of prunable weights that are pruned in it.
        seconds: time spent on it, on all ranks together.
        tally: its counts.
        hits: for each of the ranges one digit an image, 1 where it was right; images that could
            not be read have none.
    """

    done: Done = ()
    achieved: float = 0.0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    hits: tuple[str, ...] = ()

    @property
    def seen(self) -> int:
        """The number of indices that are done."""
        return sum(stop - start for start, stop in self.done)

    def plus(self, other: "Progress") -> "Progress":
        """The progress of the same variant on the images of both."""
        done, hits = _merged_hits(self, other)
        return Progress(
            done=done,
            achieved=max(self.achieved, other.achieved),  # 0 before the variant was made
            seconds=self.seconds + other.seconds,
            tally=self.tally.plus(other.tally),
            hits=hits,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        hits = [packed(digits) for digits in self.hits]
        return vars(self) | {"tally": self.tally.to_dict(), "hits": hits}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            BrokenJSONError: it is something else, or cannot be right, such as more images scored
                than seen.
        """
        progress = cls(
            done=_ranges(member(values, "done")),
            achieved=as_number(member(values, "achieved"), most=1.0),
            seconds=as_number(member(values, "seconds")),
            tally=Tally.from_dict(member(values, "tally")),
            hits=tuple(unpacked(as_text(each)) for each in as_list(member(values, "hits"))),
        )
        as_whole(progress.tally.count, most=progress.seen)  # fewer where some are unreadable
        digits = "".join(progress.hits)
        if len(progress.hits) != len(progress.done) or len(digits) != progress.tally.count:
            raise BrokenJSONError("the outcomes of the images disagree with their number")
        return progress


def _ranges(value: Any) -> Done:
    result: list[tuple[int, int]] = []
    for start, stop in (two(pair) for pair in as_list(value)):
        first = as_whole(start, least=result[-1][1] if result else 0)
        result.append((first, as_whole(stop, least=first)))
    return tuple(result)


def merged(ranges: Iterable[tuple[int, int]]) -> Done:
    """The same indices in as few ranges as possible.

    Example:
        >>> merged([(8, 16), (0, 8), (24, 32)])
        ((0, 16), (24, 32))
    """
    result: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if result and start <= result[-1][1]:
            start, stop = result[-1][0], max(stop, result.pop()[1])
        result.append((start, stop))
    return tuple(result)


def _merged_hits(one: Progress, other: Progress) -> tuple[Done, tuple[str, ...]]:
    """The ranges of both and their digits, those of adjacent ranges joined."""
    pieces: list[tuple[int, int, str]] = []
    for each in (one, other):
        digits = each.hits or ("",) * len(each.done)
        pieces += [(*ends, text) for ends, text in zip(each.done, digits, strict=True)]
    done = merged((*one.done, *other.done))
    texts = {start: "" for start, _ in done}
    for start, _, text in sorted(pieces):
        texts[max(first for first in texts if first <= start)] += text
    return done, tuple(texts.values())


def summed(several: Iterable[Mapping[str, Progress]]) -> dict[str, Progress]:
    """The progress of several ranks, or several runs, added up by variant.

    Images that are counted already are not counted again: a run that was killed while it merged
    the files of an earlier one has left both the sum and the files, and the sum comes first.
    """
    result: dict[str, Progress] = {}
    for progress in several:
        for key, each in progress.items():
            total = result[key].plus(each) if key in result else each
            if key not in result or total.seen == result[key].seen + each.seen:
                result[key] = total
    return result


def as_json(progress: Mapping[str, Progress]) -> dict[str, Any]:
    """Progress by variant, as JSON can hold it."""
    return {key: each.to_dict() for key, each in progress.items()}


def from_json(values: Mapping[str, Any]) -> dict[str, Progress]:
    """Read what `as_json` wrote.

    Raises:
        BrokenJSONError: it is something else.
    """
    return {key: Progress.from_dict(each) for key, each in values.items()}


def read_progress(
    saved: Sequence[Mapping[str, Any]], keys: Iterable[str], total: int | None
) -> dict[str, Progress]:
    """The progress that the ranks of earlier runs saved, of the variants that have begun.

    Args:
        saved: the contents of the files, rank 0's first.
        keys: the variants.
        total: how many images there are, None if not known.

    Raises:
        BrokenJSONError: another version or another tool wrote it.
    """
    wanted = list(keys)
    found = summed(from_json({key: each[key] for key in wanted if key in each}) for each in saved)
    for each in found.values():
        if total is not None and each.done and each.done[-1][1] > total:
            raise BrokenJSONError(f"it has seen {each.done[-1][1]} of {total} images")
    return found
