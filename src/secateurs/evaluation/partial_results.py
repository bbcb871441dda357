"""The progress of a sweep, from which any number of ranks can continue, and what is left of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
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
from secateurs.evaluation.batches import is_sequential, length
from secateurs.evaluation.metrics import Tally
from secateurs.results.image_outcomes import packed, unpacked


@dataclass(frozen=True)
class Progress:
    """The progress of one variant.

    Attributes:
        done: the ranges of indices in the data set, [start, stop), that it was scored on:
            ascending, not adjacent.
        achieved: ratio of prunable weights that are pruned in it.
        seconds: time spent on it, on all ranks together.
        tally: its counts.
        hits: for each of the ranges one digit an image, 1 where it was right; images that could
            not be read have none.
    """

    done: tuple[tuple[int, int], ...] = ()
    achieved: float = 0.0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    hits: tuple[str, ...] = ()

    @property
    def seen(self) -> int:
        """The number of indices that are done."""
        return sum(stop - start for start, stop in self.done)

    def plus(self, other: "Progress") -> "Progress":
        """The progress of the same variant on the images of both.

        Example:
            >>> Progress(((8, 16),), hits=("11",)).plus(Progress(((0, 8),), hits=("0",))).hits
            ('011',)
        """
        done: list[tuple[int, int]] = []
        hits: list[str] = []
        ranges = zip(self.done + other.done, self.hits + other.hits, strict=True)
        for (start, stop), digits in sorted(ranges):
            if done and start <= done[-1][1]:
                done[-1] = (done[-1][0], max(stop, done[-1][1]))
                hits[-1] += digits
            else:
                done.append((start, stop))
                hits.append(digits)
        return Progress(
            done=tuple(done),
            achieved=max(self.achieved, other.achieved),  # 0 before the variant was made
            seconds=self.seconds + other.seconds,
            tally=self.tally.plus(other.tally),
            hits=tuple(hits),
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


def _ranges(value: Any) -> tuple[tuple[int, int], ...]:
    result: list[tuple[int, int]] = []
    for start, stop in (two(pair) for pair in as_list(value)):
        first = as_whole(start, least=result[-1][1] if result else 0)
        result.append((first, as_whole(stop, least=first)))
    return tuple(result)


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


@dataclass(frozen=True)
class IndexRange:
    """Images that some variants have not been scored on.

    Attributes:
        start: index of the first one in the data set.
        stop: index after the last one, None if the number of images is not known.
        keys: the variants that have not been scored on them.
    """

    start: int
    stop: int | None
    keys: frozenset[str]


def ranges_left(
    loader: Iterable[Any], progress: Mapping[str, Progress], keys: Iterable[str]
) -> list[IndexRange]:
    """`remaining` of the images of a loader; all of one that does not read in order."""
    if not is_sequential(loader):
        return [IndexRange(0, None, frozenset(keys))]
    return remaining(progress, keys, length(loader) or 0)


def remaining(
    progress: Mapping[str, Progress], keys: Iterable[str], total: int
) -> list[IndexRange]:
    """The ranges of a data set of ``total`` images that are left, and for which variants.

    They differ between variants where a loop was interrupted inside a batch.

    Args:
        progress: what is done, by variant.
        keys: all variants.
        total: number of images in the data set.

    Returns:
        Ranges in the order of the data set, as few as possible.
    """
    done = {key: progress[key].done if key in progress else () for key in keys}
    ends = {end for ranges in done.values() for pair in ranges for end in pair}
    left: list[IndexRange] = []
    for start, stop in pairwise(sorted({0, total} | {end for end in ends if 0 < end < total})):
        missing = frozenset(
            key for key, seen in done.items() if not any(a <= start and stop <= b for a, b in seen)
        )
        if missing:
            left.append(IndexRange(start, stop, missing))
    return _merged(left)


def split(ranges: Sequence[IndexRange], ranks: int, batch_size: int) -> list[list[IndexRange]]:
    """Split ranges over ranks, in order and in whole batches, so that all have equal work.

    The batches are those of one process, so that the same images are scored together.

    Returns:
        The ranges of each rank; a rank has none where there are more ranks than batches.
    """
    batches = [
        IndexRange(start, min(start + batch_size, each.stop), each.keys)
        for each in ranges
        if each.stop is not None
        for start in range(each.start, each.stop, batch_size)
    ]
    sizes = [((batch.stop or 0) - batch.start) * len(batch.keys) for batch in batches]
    result: list[list[IndexRange]] = [[] for _ in range(ranks)]
    before, total = 0, sum(sizes)
    for batch, size in zip(batches, sizes, strict=True):
        result[before * ranks // total].append(batch)
        before += size
    return list(map(_merged, result))


def _merged(ranges: Iterable[IndexRange]) -> list[IndexRange]:
    """The same images in as few ranges as possible."""
    result: list[IndexRange] = []
    for each in ranges:
        if result and (result[-1].stop, result[-1].keys) == (each.start, each.keys):
            result[-1] = replace(result[-1], stop=each.stop)
        else:
            result.append(each)
    return result
