"""The exact k smallest scores of all ranks together: each rank counts and marks its own."""

from collections.abc import Sequence

import numpy as np
import torch

from secateurs._tensors.blocks import Array
from secateurs._tensors.float_keys import Scores, key_of
from secateurs._tensors.memory_order import pieces
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import InvalidArgumentError
from secateurs.selection.histogram import Range, Sizes
from secateurs.selection.key_counts import likely_range
from secateurs.selection.tensor_counts import TensorCounts
from secateurs.selection.threshold import Threshold, find_threshold
from secateurs.selection.tie_breaking import Marks, mark
from secateurs.selection.unit_scores import ShardScores

SIZES = Sizes(bins_log2=12)
"""Fewer bins than usual: 32 KiB in each exchange, for one or two exchanges more."""


def choose_sharded(
    groups: Sequence[Sequence[Scores]], p_prune: float, ranks: ProcessGroup, sizes: Sizes = SIZES
) -> list[torch.Tensor]:
    """Choose the candidates of every group of competing parameters; see `secateurs.select`.

    Args:
        groups: scores from `secateurs.selection.unit_scores.score_all`.
        p_prune: the ratio of units.
        ranks: the ranks that hold the model.
        sizes: how many keys are read and kept at a time, the same on all ranks.

    Returns:
        For each parameter a bool tensor, one for each unit on this rank.
    """
    chosen: list[torch.Tensor] = []
    for group in groups:
        shards = [one for one in group if isinstance(one, ShardScores)]
        chosen += _choose(shards, round(p_prune * _total(shards)), ranks, sizes)
    return chosen


def _choose(
    group: Sequence[ShardScores], k: int, ranks: ProcessGroup, sizes: Sizes
) -> list[torch.Tensor]:
    """Mark the k smallest of all scores of all ranks together.

    Ties go to the earlier tensor, then to the smaller flat index in the whole tensor, however the
    ranks divide it.

    Args:
        group: the scores of this rank, in the order in which ties are broken.
        k: how many, from 0 to the number of units.
        ranks: the ranks that hold the model, which must call together.
        sizes: how many keys are read and kept at a time.

    Returns:
        For each tensor a bool tensor, one for each unit of this rank.

    Raises:
        InvalidArgumentError: on all ranks, if a score is NaN; the parameter is named.
    """
    counted = [one for one in group if one.shard.counted]
    copies = [one for one in group if not one.shard.counted]
    marks, others = (Marks.empty([one.values for one in shards]) for shards in (counted, copies))
    masks = dict(zip((one.name for one in counted), marks.masks, strict=True))
    masks |= zip((one.name for one in copies), others.masks, strict=True)
    # Both have every tensor, if need be without elements, so that they use one format of keys.
    local = TensorCounts(_with_empty(counted, copies), marks.on_cpu, sizes)
    counts = _RankCounts(local, _total(group), ranks)
    threshold = find_threshold(counts, k, sizes.bins_log2)
    if threshold is None:
        return [masks[one.name].fill_(False) for one in group]
    copied = TensorCounts(_with_empty(copies, counted), others.on_cpu, sizes)
    mark(counted, marks, local, threshold.below, ties=0)
    mark(copies, others, copied, threshold.below, ties=0)
    made = [masks[one.name] for one in group]
    if threshold.ties:
        _mark_ties(group, made, local, threshold, ranks)
    return made


def _mark_ties(
    group: Sequence[ShardScores],
    masks: Sequence[torch.Tensor],
    local: TensorCounts,
    threshold: Threshold,
    ranks: ProcessGroup,
) -> None:
    """Mark the earliest scores that equal the threshold, over all ranks."""
    tied = [_indices(one, local.dtype, threshold.key) for one in group]
    own = [len(i) if one.shard.counted else 0 for i, one in zip(tied, group, strict=True)]
    left = threshold.ties
    rows = zip(group, masks, tied, ranks.sum(np.array(own)).tolist(), strict=True)
    for one, mask, indices, total in rows:
        if left == 0:
            break
        if total > left:
            whole = one.shard.indices_of(indices)
            size = torch.Size(one.shard.shape).numel()
            counts = _IndexCounts(whole if one.shard.counted else whole[:0], total, size, ranks)
            last = find_threshold(counts, left, local.sizes.bins_log2)
            indices = indices[whole <= last.key] if last is not None else indices[:0]
        if len(indices):
            index = torch.from_numpy(indices).to(mask.device)
            mask[torch.unravel_index(index, mask.shape)] = True
        left -= min(total, left)


def _indices(scores: ShardScores, dtype: torch.dtype, key: int) -> Array:
    """The flat indices, in this rank's shard, of the scores with this key."""
    flat = scores.values.reshape(-1)
    found: list[Array] = []
    for piece in pieces(flat):
        tied = key_of(flat[piece], dtype, absolute=scores.absolute) == key
        found.append(tied.nonzero().reshape(-1).cpu().numpy() + piece.start)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _with_empty(shards: Sequence[ShardScores], others: Sequence[ShardScores]) -> list[Scores]:
    empty = (Scores(o.name, o.values.reshape(-1)[:0], o.absolute) for o in others)
    return [*shards, *empty]


def _total(group: Sequence[ShardScores]) -> int:
    return sum(torch.Size(one.shard.shape).numel() for one in group)


class _RankCounts:
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


class _IndexCounts:
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
