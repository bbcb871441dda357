"""Counts over ranks: each counts its own keys, and the counts are added up."""

from collections.abc import Sequence

import numpy as np
import torch

from secateurs._tensors.float_keys import Scores
from secateurs.distributed.process_group import Array, ProcessGroup
from secateurs.errors import InvalidArgumentError
from secateurs.selection.histogram import Range
from secateurs.selection.key_counts import KeyCounts

BINS_LOG2 = 12
"""Bins of one exchange: 32 KiB, and one or two exchanges more than with the most bins."""

# Keys that each rank adds to the sample, on average.
_SAMPLE = 1 << 16


class RankCounts:
    """Counts of keys in ranges over all ranks; see `secateurs.selection.threshold.Counts`.

    Every method is called by all ranks together and gives all of them the same.

    Args:
        scores: what this rank counts, in the order in which ties are broken. All ranks name the
            same tensors; those that another rank counts are empty.
        marks: as for `KeyCounts`.
        total: how many scores all ranks have together.
        ranks: the ranks.

    Attributes:
        here: the counts of this rank.
    """

    def __init__(
        self, scores: Sequence[Scores], marks: torch.Tensor, total: int, ranks: ProcessGroup
    ):
        self.here = KeyCounts(scores, marks)
        self.total, self.low, self.high = total, self.here.low, self.here.high
        self._ranks = ranks

    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range that likely holds the k-th smallest; see `KeyCounts.guess`.

        The sample stays where it was taken, and grows with the number of ranks: two rounds of
        counting narrow the range down.
        """
        sample = self.here.sample(max(self.total // (_SAMPLE * self._ranks.size), 1))
        taken = int(self._ranks.sum(np.array([len(sample)]))[0])
        quantile = (k - 1) / max(self.total - 1, 1)
        spread = 3 * (taken * quantile * (1 - quantile)) ** 0.5 + 2
        ranks = (int(quantile * (taken - 1)) - spread, int(quantile * (taken - 1)) + spread + 1)
        low, high = self.low, self.high
        for _ in range(2):
            shift = max((high - low).bit_length() - BINS_LOG2, 0)
            below = np.count_nonzero(sample < low)
            bins = Range(low, high, shift).histogram(sample[(sample >= low) & (sample <= high)])
            bins[0] += below
            first, last = np.searchsorted(np.cumsum(self._ranks.sum(bins)), ranks, side="right")
            last = min(int(last), len(bins) - 1)
            first = min(int(first), last)
            low, high = low + (first << shift), min(low + ((last + 1) << shift) - 1, high)
        return low, high

    def count(self, low: int, high: int, shift: int) -> tuple[int, torch.Tensor]:
        """Counts below and in bins of a range; see `KeyCounts.count`.

        Raises:
            InvalidArgumentError: on all ranks, if a score is NaN; the parameter is named.
        """
        counted = np.zeros(2 + ((high - low) >> shift) + 1, np.int64)
        error: Exception | None = None
        try:
            below, bins = self.here.count(low, high, shift)
            counted[1], counted[2:] = below, bins.numpy()
        except InvalidArgumentError as nan:
            counted[0], error = 1, nan
        together = self._ranks.sum(counted)
        if together[0]:
            self._ranks.fail(error)
        return int(together[1]), torch.from_numpy(together[2:])


class PlaceCounts:
    """Counts of the flat indices of some elements of one tensor, over all ranks.

    Args:
        places: this rank's, ascending.
        total: how many there are on all ranks.
        size: the number of elements of the whole tensor.
        ranks: the ranks.
    """

    def __init__(self, places: Array, total: int, size: int, ranks: ProcessGroup):
        self.total, self.low, self.high = total, 0, size - 1
        self._places, self._ranks = places, ranks

    def guess(self, k: int) -> tuple[int, int]:  # noqa: ARG002
        """All there are."""
        return self.low, self.high

    def count(self, low: int, high: int, shift: int) -> tuple[int, torch.Tensor]:
        """Counts below and in bins of a range; see `KeyCounts.count`."""
        counted = np.zeros(1 + ((high - low) >> shift) + 1, np.int64)
        first, last = np.searchsorted(self._places, (low, high + 1))
        counted[0] = first
        counted[1:] = Range(low, high, shift).histogram(self._places[first:last])
        together = self._ranks.sum(counted)
        return int(together[0]), torch.from_numpy(together[1:])
