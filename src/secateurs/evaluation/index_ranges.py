"""Ranges of images that are left to score, and how they are split over ranks."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from secateurs.evaluation.batches import is_sequential, length
from secateurs.evaluation.partial_results import Progress


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
    result: list[IndexRange] = []
    for start, stop in pairwise(sorted({0, total} | {end for end in ends if 0 < end < total})):
        missing = frozenset(
            key for key, seen in done.items() if not any(a <= start and stop <= b for a, b in seen)
        )
        if result and (result[-1].stop, result[-1].keys) == (start, missing):
            result[-1] = replace(result[-1], stop=stop)
        elif missing:
            result.append(IndexRange(start, stop, missing))
    return result


def ranges_left(
    loader: Iterable[Any], progress: Mapping[str, Progress], keys: Collection[str]
) -> list[IndexRange]:
    """`remaining` of the images of a loader; all of one that does not read in order."""
    if not is_sequential(loader):
        return [IndexRange(0, None, frozenset(keys))]
    return remaining(progress, keys, length(loader) or 0)


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
        mine = result[before * ranks // total]
        before += size
        if mine and (mine[-1].stop, mine[-1].keys) == (batch.start, batch.keys):
            mine[-1] = replace(mine[-1], stop=batch.stop)
        else:
            mine.append(batch)
    return result
