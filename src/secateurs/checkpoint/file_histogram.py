"""Counts of keys in ranges, over files, for `secateurs.selection.threshold.find_threshold`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs._tensors.float_keys import key_range
from secateurs.checkpoint.file_blocks import BLOCK, Buffers, Weight
from secateurs.checkpoint.file_scores import Keys, MagnitudeKeys, key_stream
from secateurs.errors import Argument, InvalidArgumentError

# So many keys are kept instead of read again.
_KEPT = 1 << 22
_CLUSTERS, _CLUSTER = 2048, 32
_STRETCH = 1 << 16
_SAMPLED_BYTES = 1 << 26
_PENDING = 1 << 20
# A range of so many keys is counted key by key, so that a narrower one needs no other pass.
_FINE = 1 << 23


class FileCounts:
    """Counts of the keys of stored weights, a pass over the files for each call.

    Args:
        weights: the tensors, in the order in which ties are broken.
        keys: what makes their keys.
        buffers: what reads.

    Attributes:
        total: how many units there are.
        low: the least key there can be.
        high: the greatest key there can be.
    """

    def __init__(self, weights: Sequence[Weight], keys: Keys, buffers: Buffers):
        self.total = sum(weight.units for weight in weights)
        self.low, self.high = key_range(keys.dtype, signed=keys.signed)
        self._weights, self._keys, self._buffers = weights, keys, buffers
        self._integer = numpy_integer(keys.dtype)
        self._kept: Array | None = None
        self._fine: _Counter | None = None

    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range of keys, both ends included, that likely holds the k-th smallest.

        From clusters of neighbours, one at a random place in each of equal stretches: a disk reads
        pages, not numbers. Neighbours resemble each other, so the spread of the sample's rank is
        taken from how a cluster differs from the next.

        Args:
            k: from 1 to ``total``.
        """
        clusters = self._sample()
        sample = np.sort(clusters, axis=None)
        last = len(sample) - 1
        quantile = (k - 1) / max(self.total - 1, 1)
        middle = sample[int(quantile * last)]
        below = (clusters < middle).mean(axis=1)
        binomial = (quantile * (1 - quantile) / len(sample)) ** 0.5
        differences = np.diff(below, append=below[:1])
        deviation = max(float((differences**2).mean() / 2 / len(below)) ** 0.5, binomial)
        spread = 4 * deviation * len(sample) + 2
        first, final = int(quantile * last - spread), int(quantile * last + spread) + 1
        return int(sample[max(first, 0)]), int(sample[min(final, last)])

    def count(self, low: int, high: int, shift: int) -> tuple[int, torch.Tensor]:
        """Count the keys below ``low``, and those from ``low`` to ``high`` in bins.

        Args:
            low: the first key of the first bin.
            high: the last key that is counted.
            shift: each bin holds 2**shift consecutive keys.

        Returns:
            The number of keys below ``low``, and an int64 tensor of counts, one a bin.

        Raises:
            InvalidArgumentError: a score is NaN; the tensor is named.
        """
        fine = self._fine
        if fine is None or not fine.low <= low <= high <= fine.high:
            step = 0 if high - low < _FINE else shift
            fine = self._counted(_Counter(low, high, step, self._integer))
            if step:
                return fine.below, torch.from_numpy(fine.finished())
            self._fine = fine
        bins = fine.finished()
        first, last = low - fine.low, high - fine.low
        below = fine.below + int(bins[:first].sum())
        inside = bins[first : last + 1]
        starts = np.arange(0, len(inside), 1 << shift)
        return below, torch.from_numpy(np.add.reduceat(inside, starts))

    def _counted(self, counter: "_Counter") -> "_Counter":
        """Show all keys to a counter."""
        if self._kept is not None:
            for start in range(0, len(self._kept), BLOCK):
                counter.add(self._kept[start : start + BLOCK])
            return counter
        for weight, keys in key_stream(self._weights, self._keys, self._buffers):
            self._refuse_nan(weight, keys)
            counter.add(keys)
        return counter

    def _refuse_nan(self, weight: Weight, keys: Array) -> None:
        if keys.size and int(keys.max()) > self.high:
            name = weight.entry.name
            raise InvalidArgumentError(
                f"the score of {name} is NaN in places, so it has no rank: check the weights, or "
                "write ",
                Argument("exclude", name),
            )

    def _sample(self) -> Array:
        """Keys at places spread over all weights, one row a cluster."""
        if self.total <= _KEPT:
            parts: list[Array] = []
            for weight, keys in key_stream(self._weights, self._keys, self._buffers):
                self._refuse_nan(weight, keys)
                parts.append(keys.copy())
            self._kept = np.concatenate(parts)
            step = max(len(self._kept) // (_CLUSTERS * _CLUSTER), 1)
            return self._kept[::step].reshape(-1, 1)
        if not isinstance(self._keys, MagnitudeKeys):
            first = next(keys for _, keys in key_stream(self._weights, self._keys, self._buffers))
            return first.copy().reshape(-1, 1)  # independent numbers: any of them will do
        return self._sample_clusters(self._keys)

    def _sample_clusters(self, keys: MagnitudeKeys) -> Array:
        narrow = [weight for weight in self._weights if not weight.is_wide]
        widest = max((weight.size * weight.entry.itemsize for weight in narrow), default=1)
        most = BLOCK // max((weight.size for weight in narrow), default=1)
        length = max(min(_CLUSTER, _SAMPLED_BYTES // (widest * _CLUSTERS), most), 1)
        # Of small parts, fewer: pages far apart cost a disk more than reading them all twice.
        most = min(_CLUSTERS, max(self.total // _STRETCH, _CLUSTERS // 16))
        count = max(min(most, _SAMPLED_BYTES // (widest * length)), 16)
        offsets = np.arange(count) + np.random.default_rng(0).random(count)
        places = (offsets * (self.total / count)).astype(np.int64)
        rows: list[Array] = []
        before = 0
        for weight in self._weights:
            inside = places[(places >= before) & (places < before + weight.units)] - before
            before += weight.units
            if weight.units < length or weight.is_wide:
                continue
            with self._buffers.reader(weight.path) as reader:
                for place in np.minimum(inside, weight.units - length).tolist():
                    bytes_a_unit = weight.size * weight.entry.itemsize
                    start = weight.entry.start + place * bytes_a_unit
                    values = reader.read(start, start + length * bytes_a_unit, ahead=False)
                    rows.append(keys.of(weight, values, length, place * weight.size).copy())
        return np.stack(rows) if rows else np.array([[self.low], [self.high]], self._integer)


class _Counter:
    """Counts, with buffers that are used again.

    Args:
        low: the first key of the first bin.
        high: the last key that is counted.
        shift: each bin holds 2**shift consecutive keys.
        integer: the dtype of the keys.

    Attributes:
        low: as given.
        high: as given.
        below: how many keys are less than ``low``.
    """

    def __init__(self, low: int, high: int, shift: int, integer: np.dtype[Any]):
        self.low, self.high, self.below = low, high, 0
        self._shift = shift
        self._ends = integer.type(low), integer.type(high)
        self._bins = np.zeros(((high - low) >> shift) + 1, np.int64)
        self._less, self._inside = np.empty(BLOCK, bool), np.empty(BLOCK, bool)
        self._pending: list[Array] = []
        self._waiting = 0

    def add(self, keys: Array) -> None:
        """Count some keys."""
        less, inside = self._less[: len(keys)], self._inside[: len(keys)]
        np.less(keys, self._ends[0], out=less)
        np.less_equal(keys, self._ends[1], out=inside)
        self.below += int(np.count_nonzero(less))
        np.not_equal(less, inside, out=inside)
        # Several times as fast as keys[inside], as long as few are inside.
        found = keys.take(np.flatnonzero(inside))
        if found.size:
            self._pending.append(found)
            self._waiting += found.size
            if self._waiting >= _PENDING:
                self.finished()

    def finished(self) -> Array:
        """The bins, with nothing waiting any more."""
        if self._pending:
            places = (np.concatenate(self._pending).astype(np.int64) - self.low) >> self._shift
            np.add.at(self._bins, places, 1)
            self._pending, self._waiting = [], 0
        return self._bins
