"""Counts of keys over files, for `secateurs.selection.threshold.find_threshold`."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs.checkpoint.file_blocks import BLOCK, Buffers, Weight
from secateurs.checkpoint.file_scores import Keys, MagnitudeKeys
from secateurs.selection.histogram import KeyPass, Sizes
from secateurs.selection.key_counts import KeyCounts, likely_range

SIZES = Sizes(block=BLOCK, kept=1 << 20, crowd=BLOCK >> 3)
"""Sizes for files: they are larger than in memory, since reading a file again takes longer."""

# Keys are held in memory instead of being read again, up to this many times what a pass keeps.
_WHOLE = 4
# A disk reads pages, not single numbers, so the sample consists of clusters of this many units,
_NEIGHBOURS = 32
# and of at most one cluster in this many units: to jump between pages is slower than to read on.
_UNITS_PER_CLUSTER = 1 << 16
_SAMPLED_BYTES = 1 << 26


class FileCounts(KeyCounts):
    """Counts of the keys of stored weights. Each pass over the keys reads the files."""

    def __init__(
        self, weights: Sequence[Weight], keys: Keys, buffers: Buffers, sizes: Sizes = SIZES
    ):
        total = sum(weight.units for weight in weights)
        super().__init__(keys.dtype, total, signed=keys.signed, sizes=sizes)
        self._weights, self._keys, self._buffers = weights, keys, buffers
        self._held: Array | None = None

    def guess(self, k: int) -> tuple[int, int]:
        """Guess from clusters of units, spread over all weights; see `KeyCounts.guess`.

        The units of a cluster are similar, so the deviation of the sample's rank is estimated from
        the differences between successive clusters. A wrong guess costs another pass over the
        files, so the range is a little wider than in memory.
        """
        clusters = self._sample()
        quantile = (k - 1) / max(self.total - 1, 1)
        rank = int(quantile * (clusters.size - 1))
        below = (clusters < np.partition(clusters, rank, axis=None)[rank]).mean(axis=1)
        differences = np.diff(below, append=below[:1])
        deviation = float((differences**2).mean() / 2 / len(below)) ** 0.5
        sample = clusters.reshape(-1)
        return likely_range(sample, k, self.total, deviations=4, deviation=deviation)

    def add_keys_to(self, counting: KeyPass) -> None:
        """Add all keys to a pass."""
        if self._held is None:
            counting.add(keys for _, keys in self._stream())
        else:
            starts = range(0, len(self._held), self.sizes.block)
            counting.add(self._held[start : start + self.sizes.block] for start in starts)

    def name_of_nan(self) -> str:
        """The name of the first tensor with a score that is NaN."""
        for weight, keys in self._stream():
            if keys.size and int(keys.max()) > self.high:
                return weight.entry.name
        raise RuntimeError("no score is NaN any more: another program writes to the file")

    def _stream(self) -> Iterator[tuple[Weight, Array]]:
        """The keys of all units, in order, with the weight that they are of."""
        for path, inside in groupby(self._weights, key=lambda weight: weight.path):
            with self._buffers.reader(path) as reader:
                for weight in inside:
                    for keys in self._keys.blocks(weight, reader):
                        yield weight, keys

    def _sample(self) -> Array:
        """Keys from all weights; each row is one cluster."""
        if self.total <= _WHOLE * self.sizes.kept:
            self._held = np.concatenate([keys.copy() for _, keys in self._stream()])
            return self._held[:: max(self.total // self.sizes.sample, 1)].copy().reshape(-1, 1)
        if not isinstance(self._keys, MagnitudeKeys):
            _, first = next(self._stream())
            return first.copy().reshape(-1, 1)  # the numbers are independent: any sample will do
        return self._sample_clusters(self._keys)

    def _sample_clusters(self, keys: MagnitudeKeys) -> Array:
        length, starts = self._clusters()
        rows: list[Array] = []
        before = 0
        for weight in self._weights:
            inside = starts[(starts >= before) & (starts < before + weight.units)] - before
            before += weight.units
            if weight.units < length or weight.is_wide:
                continue
            with self._buffers.reader(weight.path) as reader:
                for unit in np.minimum(inside, weight.units - length).tolist():
                    first = unit * weight.size
                    begin = weight.entry.start + first * weight.entry.itemsize
                    nbytes = length * weight.size * weight.entry.itemsize
                    values = reader.read(begin, begin + nbytes, ahead=False)
                    rows.append(keys.of(weight, values, length, first).copy())
        integer = numpy_integer(self.dtype)
        return np.stack(rows) if rows else np.array([[self.low], [self.high]], integer)

    def _clusters(self) -> tuple[int, Array]:
        """The number of units of one cluster, and the index of the first unit of each."""
        narrow = [weight for weight in self._weights if not weight.is_wide]
        widest = max((weight.size * weight.entry.itemsize for weight in narrow), default=1)
        fitting = self.sizes.block // max((weight.size for weight in narrow), default=1)
        most = max(self.sizes.sample // _NEIGHBOURS, 1)
        length = max(min(_NEIGHBOURS, _SAMPLED_BYTES // (widest * most), fitting), 1)
        count = min(most, max(self.total // _UNITS_PER_CLUSTER, most // 16))
        count = max(min(count, _SAMPLED_BYTES // (widest * length)), 16)
        # Stratified: one at a random offset in each of ``count`` equal ranges.
        offsets = np.arange(count) + np.random.default_rng(0).random(count)
        return length, (offsets * (self.total / count)).astype(np.int64)
