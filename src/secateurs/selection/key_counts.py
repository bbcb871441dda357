"""Counts of keys in ranges, over tensors in memory, at about the speed of reading them."""

from collections.abc import Sequence

import numpy as np
import torch

from secateurs._tensors.blocks import Array, Source, in_threads, share_out
from secateurs._tensors.device_keys import device_blocks, fetched
from secateurs._tensors.float_keys import Scores, key_dtype, key_of, key_range
from secateurs._tensors.memory_order import flattened, pieces
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.selection.histogram import Inside, Pass, Range

_SAMPLE = 1 << 16
# Many weights want a narrower range, so that what lies inside stays little.
_MANY, _LARGE_SAMPLE = 1 << 25, 1 << 18


class KeyCounts:
    """Counts of keys in ranges: all that selection needs to know of the scores.

    Args:
        scores: the tensors, in the order in which ties are broken.
        marks: a flat bool tensor on the CPU, one element for each score on the CPU in the order of
            memory. Each pass leaves there which keys are below its range.

    Attributes:
        dtype: the float format that the keys are of.
        total: how many scores there are.
        low: the least key there can be.
        high: the greatest key there can be.
        marked: the scores whose key is below this one are marked in ``marks``; None before the
            first pass.
        inside: what the last pass met in its range; None if that was too much to keep.
        parts: the scores on the CPU, shared out to threads.
    """

    def __init__(self, scores: Sequence[Scores], marks: torch.Tensor | None = None):
        self.dtype = key_dtype(scores)
        self.total = sum(s.values.numel() for s in scores)
        self.low, self.high = key_range(self.dtype, signed=any(not s.absolute for s in scores))
        self.marked: int | None = None
        self.inside: Inside | None = None
        self._scores = scores
        here: list[Scores] = []
        self._elsewhere: list[Scores] = []
        for one in scores:
            (here if one.values.device.type == "cpu" else self._elsewhere).append(one)
        self._sources = [Source(one, self.dtype) for one in here]
        self.parts = share_out(self._sources)
        self._marks = None if marks is None else marks.numpy()

    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range of keys, both ends included, that likely holds the k-th smallest.

        Taken from evenly spaced samples; a wrong guess costs another pass, never exactness.

        Args:
            k: from 1 to ``total``.
        """
        size = _SAMPLE if self.total < _MANY else _LARGE_SAMPLE
        sample = self.sample(max(self.total // size, 1))
        first, final = sampled_ranks(k, self.total, len(sample))
        sample.partition((first, final))
        return int(sample[first]), int(sample[final])

    def count(self, low: int, high: int, shift: int) -> tuple[int, torch.Tensor]:
        """Count the keys below ``low``, and those from ``low`` to ``high`` in bins.

        A pass over the scores, unless the last pass kept all that lies in the range.

        Args:
            low: the first key of the first bin.
            high: the last key that is counted.
            shift: each bin holds 2**shift consecutive keys.

        Returns:
            The number of keys below ``low``, and an int64 tensor of counts, one a bin.

        Raises:
            InvalidArgumentError: a score is NaN; the parameter is named.
        """
        known, wanted = self.inside, Range(low, high, shift)
        if known is None or low < known.range.low or high > known.range.high:
            return self._count_all(wanted)
        below = known.below + int(np.count_nonzero(known.keys < low))
        keys = known.keys[(known.keys >= low) & (known.keys <= high)]
        return below, torch.from_numpy(wanted.histogram(keys))

    def _count_all(self, wanted: Range) -> tuple[int, torch.Tensor]:
        made = Pass(wanted, self.dtype, signed=self.low < 0, threads=len(self.parts))
        in_threads(lambda part: made.add_blocks(part, self._marks), self.parts)
        for keys in device_blocks(self._elsewhere, self.dtype):
            made.add_on_device(keys)
        made.fetch_counts()
        if made.least < self.low or made.greatest > self.high:  # beyond the infinities: NaN
            self._name_nan()
        bins, self.inside = made.finish()
        self.marked = wanted.low
        return made.below, torch.from_numpy(bins)

    def sample(self, step: int) -> Array:
        """Every ``step``-th key of all tensors together."""
        offset = 0
        found: list[Array] = []
        on_device: list[torch.Tensor] = []
        for source in self._sources:
            first = -offset % step
            if first < source.size:
                found.append(source.keys(slice(first, None, step)))
            offset += source.size
        for scores in self._elsewhere:
            flat, first = flattened(scores.values), -offset % step
            if first < flat.numel():
                on_device.append(key_of(flat[first::step], self.dtype, absolute=scores.absolute))
            offset += flat.numel()
        found += [keys.numpy() for keys in fetched(on_device)]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _name_nan(self) -> None:
        for scores in self._scores:
            flat = flattened(scores.values)
            if any(bool(flat[piece].to(self.dtype).isnan().any()) for piece in pieces(flat)):
                raise InvalidArgumentError(
                    f"the score of {scores.name} is NaN in places, so it has no rank: check the "
                    "weights and gradients, or write ",
                    Argument("exclude", scores.name),
                )


def sampled_ranks(k: int, total: int, samples: int) -> tuple[int, int]:
    """The ranks in an evenly spaced sample that the k-th smallest of all likely lies between.

    Args:
        k: from 1 to ``total``.
        total: how many there are.
        samples: how many of them were sampled, at least one.
    """
    last = samples - 1
    quantile = (k - 1) / max(total - 1, 1)
    # Three standard deviations of the rank of a sample quantile (a binomial).
    spread = 3 * (samples * quantile * (1 - quantile)) ** 0.5 + 2
    return max(int(quantile * last - spread), 0), min(int(quantile * last + spread) + 1, last)
