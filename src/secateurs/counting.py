"""Counts of keys in ranges, over tensors in memory, at about the speed of reading them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from secateurs import layout
from secateurs.blocks import Array, Span, key_blocks, numpy_integer, share_out
from secateurs.errors import InvalidArgumentError
from secateurs.keys import Scores, key_dtype, key_of, key_range
from secateurs.layout import flattened, pieces

_SAMPLE = 1 << 16
# Keys inside the range are few and wait for each other: a histogram costs as much as its bins.
_PENDING = 1 << 18


class KeyCounts:
    """Counts of keys in ranges: all that selection needs to know of the scores.

    Args:
        scores: the tensors, in the order in which ties are broken.

    Attributes:
        dtype: the float format that the keys are of.
        total: how many scores there are.
        low: the least key there can be.
        high: the greatest key there can be.
    """

    def __init__(self, scores: Sequence[Scores]):
        self.dtype = key_dtype(scores)
        self.total = sum(s.values.numel() for s in scores)
        self.low, self.high = key_range(self.dtype, signed=any(not s.absolute for s in scores))
        self._scores = scores
        flats = [(flattened(s.values), s.absolute) for s in scores]
        self._elsewhere = [pair for pair in flats if pair[0].device.type != "cpu"]
        self._flats = flats
        self._shares = share_out(flats, torch.get_num_threads())

    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range of keys, both ends included, that likely holds the k-th smallest.

        Taken from evenly spaced samples; a wrong guess costs another pass, never exactness.

        Args:
            k: from 1 to ``total``.
        """
        sample = np.sort(self._sample())
        last = len(sample) - 1
        quantile = (k - 1) / max(self.total - 1, 1)
        # Four standard deviations of the rank of a sample quantile (a binomial).
        spread = 4 * (len(sample) * quantile * (1 - quantile)) ** 0.5 + 2
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
            InvalidArgumentError: a score is NaN; the parameter is named.
        """
        signed = self.low < 0
        counters = [_Counter(low, high, shift, self.dtype, signed) for _ in self._shares]
        with ThreadPoolExecutor(len(counters)) as pool:
            list(pool.map(_Counter.add_all, counters, self._shares))
        for flat, absolute in self._elsewhere:
            for piece in pieces(flat):
                counters[0].add_on_device(key_of(flat[piece], self.dtype, absolute=absolute))
        least, greatest = min(c.least for c in counters), max(c.greatest for c in counters)
        if least < self.low or greatest > self.high:  # beyond the infinities: NaN
            self._name_nan()
        bins = sum((c.finished() for c in counters), np.zeros(1, np.int64))
        return sum(c.below for c in counters), torch.from_numpy(bins)

    def _sample(self) -> Array:
        """Every so-manieth key of all tensors together, about `_SAMPLE` of them."""
        step, offset = max(self.total // _SAMPLE, 1), 0
        found: list[Array] = []
        for flat, absolute in self._flats:
            first = -offset % step
            if first < flat.numel():
                keys = key_of(flat[first::step], self.dtype, absolute=absolute)
                found.append(keys.cpu().numpy())
            offset += flat.numel()
        return np.concatenate(found)

    def _name_nan(self) -> None:
        for scores in self._scores:
            flat = flattened(scores.values)
            if any(bool(flat[piece].to(self.dtype).isnan().any()) for piece in pieces(flat)):
                raise InvalidArgumentError(
                    f"the score of {scores.name} is NaN in places, so it has no rank: check the "
                    f"weights and gradients, or write exclude={scores.name!r}"
                )


class _Counter:
    """Counts of one thread, with its buffers."""

    def __init__(self, low: int, high: int, shift: int, dtype: torch.dtype, signed: bool):
        self.below, self.least, self.greatest = 0, 0, 0
        self._low, self._high, self._shift = low, high, shift
        self._dtype, self._signed = dtype, signed
        integer = numpy_integer(dtype).type
        self._ends = integer(low), integer(high)
        self._bins = np.zeros(((high - low) >> shift) + 1, dtype=np.int64)
        self._less, self._inside = np.empty(layout.BLOCK, bool), np.empty(layout.BLOCK, bool)
        self._pending: list[Array] = []
        self._waiting = 0

    def add_all(self, spans: Sequence[Span]) -> None:
        """Count the keys of parts of tensors on the CPU."""
        for keys in key_blocks(spans, self._dtype):
            self._add(keys)

    def add_on_device(self, keys: torch.Tensor) -> None:
        """Count keys where they are; only those inside the range are fetched."""
        self.below += int(torch.count_nonzero(keys < self._low))
        self._note(int(keys.min()), int(keys.max()))
        self._keep(keys[(keys >= self._low) & (keys <= self._high)].cpu().numpy())

    def finished(self) -> Array:
        """The bins, with nothing waiting any more."""
        if self._pending:
            keys = np.concatenate(self._pending).astype(np.int64).view(np.uint64)
            # Unsigned, since the keys of signed float64 scores span more than an int64 holds.
            places = (keys - np.uint64(self._low % 2**64)) >> np.uint64(self._shift)
            self._bins += np.bincount(places.view(np.int64), minlength=len(self._bins))
            self._pending, self._waiting = [], 0
        return self._bins

    def _add(self, keys: Array) -> None:
        less, inside = self._less[: len(keys)], self._inside[: len(keys)]
        np.less(keys, self._ends[0], out=less)
        np.less_equal(keys, self._ends[1], out=inside)
        self.below += int(np.count_nonzero(less))
        self._note(int(keys.min()) if self._signed else 0, int(keys.max()))
        np.not_equal(less, inside, out=inside)
        self._keep(keys[inside])

    def _note(self, least: int, greatest: int) -> None:
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def _keep(self, keys: Array) -> None:
        if keys.size:
            self._pending.append(keys)
            self._waiting += keys.size
            if self._waiting >= _PENDING:
                self.finished()
