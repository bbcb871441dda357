"""Counts over ranks: each rank counts its own keys, and the counts are added up."""

import numpy as np

from secateurs._tensors.blocks import Array
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import InvalidArgumentError
from secateurs.selection.histogram import Range, Sizes
from secateurs.selection.key_counts import likely_range
from secateurs.selection.tensor_counts import TensorCounts

SIZES = Sizes(bins_log2=12)
"""Fewer bins than usual: 32 KiB in each exchange, for one or two exchanges more."""


class RankCounts:
    """Counts of keys in ranges over all ranks; see `secateurs.selection.threshold.Counts`.

    All ranks call every method together, and get the same result.

    Args:
        local: the counts of this rank. All ranks have keys of the same format.
        total: how many scores all ranks have together.
        ranks: the ranks.
    """

    def __init__(self, local: TensorCounts, total: int, ranks: ProcessGroup):
        self.total, self.low, self.high = total, local.low, local.high
        self._local, self._ranks = local, ranks

    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range that likely holds the k-th smallest; see `KeyCounts.guess`."""
        sample = self._local.every(self._local.sample_step(self.total))
        sizes = np.zeros(self._ranks.size, np.int64)
        sizes[self._ranks.rank] = len(sample)
        ends = np.cumsum(self._ranks.sum(sizes))
        begin = int(ends[self._ranks.rank]) - len(sample)
        samples = np.zeros(int(ends[-1]), np.int64)
        samples[begin : begin + len(sample)] = sample
        return likely_range(self._ranks.sum(samples), k, self.total)

    def count(self, low: int, high: int, shift: int) -> tuple[int, Array]:
        """Counts below and in the bins of a range; see `KeyCounts.count`.

        Raises:
            InvalidArgumentError: on all ranks, if a score is NaN; the parameter is named.
        """
        counted = np.zeros(2 + Range(low, high, shift).bins, np.int64)
        error: Exception | None = None
        try:
            counted[1], counted[2:] = self._local.count(low, high, shift)
        except InvalidArgumentError as nan:
            counted[0], error = 1, nan
        sums = self._ranks.sum(counted)
        if sums[0]:
            self._ranks.fail(error)
        return int(sums[1]), sums[2:]


class IndexCounts:
    """Counts of the flat indices of some elements of one tensor, over all ranks.

    Args:
        indices: this rank's, ascending.
        total: how many there are on all ranks.
        size: how many elements the whole tensor has.
        ranks: the ranks.
    """

    def __init__(self, indices: Array, total: int, size: int, ranks: ProcessGroup):
        self.total, self.low, self.high = total, 0, size - 1
        self._indices, self._ranks = indices, ranks

    def guess(self, k: int) -> tuple[int, int]:  # noqa: ARG002
        """The range of all indices."""
        return self.low, self.high

    def count(self, low: int, high: int, shift: int) -> tuple[int, Array]:
        """Counts below and in the bins of a range; see `KeyCounts.count`."""
        first, last = np.searchsorted(self._indices, (low, high + 1))
        bins = Range(low, high, shift).histogram(self._indices[first:last])
        sums = self._ranks.sum(np.concatenate([[first], bins]))
        return int(sums[0]), sums[1:]
