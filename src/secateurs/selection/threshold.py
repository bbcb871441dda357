"""The exact k smallest of any number of scores, without sorting or concatenating them.

`find_threshold` is the algorithm: it narrows a range of keys by counting until one key is left. It
reads nothing but counts, which can be added up, so it works for all sources of scores:

* in memory, `secateurs.selection.tensor_counts`;
* divided over ranks, `secateurs.selection.sharded_threshold`;
* in files, `secateurs.checkpoint.file_histogram`.

In memory, `candidate_masks` usually needs one pass over the scores. The pass marks the scores below
a range that likely holds the threshold, and keeps the few keys inside the range. From these come
the threshold and the earliest of the scores that equal it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from secateurs._tensors.blocks import Array
from secateurs._tensors.device_keys import device_blocks, joined_keys
from secateurs._tensors.float_keys import Scores, key_dtype, key_range
from secateurs._tensors.memory_order import flattened
from secateurs.selection.histogram import Sizes
from secateurs.selection.key_counts import sampled_ranks
from secateurs.selection.tensor_counts import TensorCounts
from secateurs.selection.tie_breaking import Marks, mark


class Counts(Protocol):
    """A source of counts: all that the search reads."""

    total: int
    low: int
    high: int

    def guess(self, k: int) -> tuple[int, int]:
        """A range of keys that likely holds the k-th smallest; see `KeyCounts.guess`."""
        ...

    def count(self, low: int, high: int, shift: int) -> tuple[int, Array]:
        """Counts below and in the bins of a range; see `KeyCounts.count`."""
        ...


@dataclass(frozen=True)
class Threshold:
    """The threshold up to which units are candidates.

    Attributes:
        key: the k-th smallest key.
        below: units with a smaller key than ``below`` are candidates. It is ``key``, or the next
            key if all units that have ``key`` are candidates.
        ties: how many of the units with the key ``below`` are candidates, the earliest first.
    """

    key: int
    below: int
    ties: int


def find_threshold(counts: Counts, k: int, bins_log2: int = Sizes.bins_log2) -> Threshold | None:
    """Find the k-th smallest key exactly.

    Args:
        counts: the source of counts.
        k: from 0 to ``counts.total``.
        bins_log2: a range is counted in at most ``2**bins_log2`` bins at a time.

    Returns:
        The threshold of the k smallest; None if k is 0.

    Raises:
        InvalidArgumentError: a score is NaN, whatever k is; the parameter is named.
    """
    if k == 0:
        counts.count(counts.low, counts.low, 0)  # reads every score, and refuses NaN
        return None
    low, high = counts.guess(k)
    while True:
        shift = max((high - low).bit_length() - bins_log2, 0)
        below, bins = counts.count(low, high, shift)
        if below >= k:  # the guess was too high
            low, high = counts.low, low - 1
            continue
        ends = np.cumsum(bins)
        if below + int(ends[-1]) < k:  # the guess was too low
            low, high = high + 1, counts.high
            continue
        index = int(np.searchsorted(ends, k - below))
        tied = int(bins[index])
        before = below + int(ends[index]) - tied
        first = low + (index << shift)
        if shift == 0:
            return threshold_at(first, k - before, tied)
        low, high = first, min(first + (1 << shift) - 1, high)


def threshold_at(key: int, ties: int, tied: int) -> Threshold:
    """The threshold of all units below a key, and ``ties`` of the ``tied`` units that have it."""
    return Threshold(key, key + 1, 0) if ties == tied else Threshold(key, key, ties)


def candidate_masks(
    scores: Sequence[Scores], k: int, marks: Marks | None = None, sizes: Sizes | None = None
) -> tuple[list[torch.Tensor], Threshold | None]:
    """Mark the k smallest of all scores together.

    Args:
        scores: the tensors, in the order in which ties are broken: an earlier tensor first, and
            within a tensor the smaller flat index.
        k: how many, from 0 to the number of scores.
        marks: the masks to write to; None makes new ones.
        sizes: how many keys are read and kept at a time.

    Returns:
        One bool tensor for each of ``scores``, in its shape, with k true elements in all; and the
        threshold, None if k is 0.

    Raises:
        InvalidArgumentError: a score is NaN; the parameter is named.
    """
    marks = marks or Marks.empty([s.values for s in scores])
    counts = TensorCounts(scores, marks.on_cpu, sizes)
    kinds = {(one.values.device, one.absolute) for one in scores}
    on_device = len(kinds) == 1 and not scores[0].values.is_cpu
    threshold = find_threshold_on_device(scores, k) if k and on_device else None
    threshold = threshold or find_threshold(counts, k, counts.sizes.bins_log2)
    if threshold is None:
        for mask in marks.masks:
            mask.fill_(False)
    else:
        mark(scores, marks, counts, threshold.below, threshold.ties)
    return marks.masks, threshold


def find_threshold_on_device(
    scores: Sequence[Scores], k: int, few: int = 1 << 23
) -> Threshold | None:
    """Find the k-th smallest key on an accelerator: sort those in a range guessed from a sample.

    It waits for the device three times, whatever the number of tensors; `find_threshold`, which
    counts, would wait at every step.

    Args:
        scores: at least one, all on one device, and all absolute or none.
        k: from 1 to the number of scores.
        few: the most keys that may be in the range, which are sorted.

    Returns:
        The threshold of the k smallest; None if the k-th is not in the likely range, too many keys
        are in it, or a score is NaN.
    """
    dtype, total = key_dtype(scores), sum(s.values.numel() for s in scores)
    low, high = _likely_range(scores, dtype, k, total)
    least, greatest = key_range(dtype, signed=not scores[0].absolute)
    inside: list[torch.Tensor] = []
    below: list[torch.Tensor] = []
    nan: list[torch.Tensor] = []
    kept = 0
    for keys in device_blocks(scores, dtype):
        inside.append(keys[(keys >= low) & (keys <= high)])
        below.append((keys < low).sum())
        nan.append(((keys < least) | (keys > greatest)).sum())  # beyond the infinities
        kept += len(inside[-1])
        if kept > few:
            return None
    before, nans = torch.stack([sum(below[1:], below[0]), sum(nan[1:], nan[0])]).tolist()
    if nans or not before < k <= before + kept:
        return None
    ranked = torch.cat(inside).sort().values
    key = ranked[k - before - 1]
    found, smaller, tied = torch.stack(
        [key.long(), (ranked < key).sum(), (ranked == key).sum()]
    ).tolist()
    return threshold_at(found, k - before - smaller, tied)


def _likely_range(
    scores: Sequence[Scores], dtype: torch.dtype, k: int, total: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two keys, on the device, that likely have the k-th smallest between them."""
    step, offset = max(total // Sizes.sample, 1), 0
    taken: list[torch.Tensor] = []
    for one in scores:
        flat, first = flattened(one.values), -offset % step
        if first < flat.numel():
            taken.append(flat[first::step])
        offset += flat.numel()
    sample = joined_keys(taken, dtype, absolute=scores[0].absolute).sort().values
    first, final = sampled_ranks(k, total, len(sample))
    return sample[first], sample[final]
