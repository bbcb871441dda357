"""The exact k smallest of any number of scores, without concatenating them.

`find_threshold` narrows a range of keys by counting until one key is left. Usually that is one pass
over the scores, which marks what lies below the range on its way; `candidate_masks` then settles
the few inside the range, and of the scores that equal the threshold takes the earliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from secateurs._tensors.float_keys import Scores
from secateurs.selection.device_threshold import find_threshold_on_device
from secateurs.selection.key_counts import KeyCounts
from secateurs.selection.tie_breaking import Marks, mark

_MAX_BINS_LOG2 = 18


class Counts(Protocol):
    """What the search needs: counts over ranges of keys, from wherever the scores are."""

    total: int
    low: int
    high: int

    def guess(self, k: int) -> tuple[int, int]:
        """A range of keys that likely holds the k-th smallest; see `KeyCounts.guess`."""
        ...

    def count(self, low: int, high: int, shift: int) -> tuple[int, torch.Tensor]:
        """Counts below and in bins of a range; see `KeyCounts.count`."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Where the candidates end.

    Attributes:
        key: the k-th smallest key.
        ties: how many of the units with exactly this key are candidates, the earliest first.
        tied: how many units have this key.
    """

    key: int
    ties: int
    tied: int


def find_threshold(counts: Counts, k: int, bins_log2: int = _MAX_BINS_LOG2) -> Threshold:
    """Find the k-th smallest key exactly.

    Args:
        counts: the scores, seen through counts over ranges of keys.
        k: from 1 to ``counts.total``.
        bins_log2: a range is counted in at most ``2**bins_log2`` bins at a time.

    Returns:
        The key, and how many of its ties belong to the k smallest.
    """
    low, high = counts.guess(k)
    while True:
        shift = max((high - low).bit_length() - bins_log2, 0)
        below, bins = counts.count(low, high, shift)
        if below >= k:  # the guess lay too high
            low, high = counts.low, low - 1
            continue
        ends = bins.cumsum(0)
        if below + int(ends[-1]) < k:  # the guess lay too low
            low, high = high + 1, counts.high
            continue
        place = int(torch.searchsorted(ends, k - below))
        tied = int(bins[place])
        before = below + int(ends[place]) - tied
        first = low + (place << shift)
        if shift == 0:
            return Threshold(first, k - before, tied)
        low, high = first, min(first + (1 << shift) - 1, high)


def candidate_masks(
    scores: Sequence[Scores], k: int, marks: Marks | None = None
) -> tuple[list[torch.Tensor], Threshold | None]:
    """Mark the k smallest of all scores together.

    Args:
        scores: the tensors, in the order in which ties are broken: an earlier tensor first, and
            within a tensor the smaller flat index.
        k: how many, from 0 to the number of scores.
        marks: where to mark them; made if None.

    Returns:
        One bool tensor for each of ``scores``, in its shape, with k true elements in all; and the
        threshold, None if k is 0.

    Raises:
        InvalidArgumentError: a score is NaN; the parameter is named.
    """
    marks = marks or Marks.empty([s.values for s in scores])
    counts = KeyCounts(scores, marks.here)
    if k == 0:
        counts.count(counts.low, counts.low, 0)  # for its refusal of NaN
        for mask in marks.masks:
            mask.fill_(False)
        return marks.masks, None
    threshold = _found_on_device(scores, k) or find_threshold(counts, k)
    mark(scores, marks, counts, threshold.key, threshold.ties, threshold.tied)
    return marks.masks, threshold


def _found_on_device(scores: Sequence[Scores], k: int) -> Threshold | None:
    """The threshold of scores that are all on one accelerator, if it can be found there."""
    kinds = {(one.values.device, one.absolute) for one in scores}
    if len(kinds) > 1 or next(iter(kinds))[0].type == "cpu":
        return None
    found = find_threshold_on_device(scores, k)
    return None if found is None else Threshold(*found)
