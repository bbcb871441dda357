"""One pass over keys: how many lie below a range, and what lies inside it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from secateurs._tensors import memory_order
from secateurs._tensors.blocks import Array, Part, block_length, key_blocks, numpy_integer
from secateurs._tensors.device_keys import fetched

# Keys inside a range are kept while they are so few; then nothing has to be read twice.
_FEW = 3 << 17
_GROUP = 1 << 16
# So many keys of one block in a narrow range are mostly one or two values, over and over.
_CROWD = memory_order.BLOCK >> 3


@dataclass(frozen=True)
class Range:
    """Keys from ``low`` to ``high``, both included, in bins of ``2**shift`` consecutive keys."""

    low: int
    high: int
    shift: int

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return ((self.high - self.low) >> self.shift) + 1

    def histogram(self, keys: Array) -> Array:
        """Count keys that all lie in the range, bin by bin; int64."""
        # Unsigned, since the keys of signed float64 scores span more than an int64 holds.
        offsets = keys.astype(np.int64).view(np.uint64)
        offsets -= np.uint64(self.low % 2**64)
        offsets >>= np.uint64(self.shift)
        return np.bincount(offsets.view(np.int64), minlength=self.bins)


@dataclass(frozen=True)
class Inside:
    """All that one pass met in its range.

    Attributes:
        range: the range.
        below: how many keys are less than its ``low``.
        keys: the keys in the range, those on the CPU first.
        places: for each of those on the CPU its place among all elements on the CPU, in the order
            of memory; ascending.
    """

    range: Range
    below: int
    keys: Array
    places: Array


class Pass:
    """Counts of one pass, added to by several threads.

    Args:
        wanted: the range that is looked at closely.
        dtype: the float format of the keys.
        signed: whether keys may be negative.
        threads: how many threads add blocks.

    Attributes:
        below: how many keys are less than ``wanted.low``.
        least: the least key met, at most 0.
        greatest: the greatest key met, at least 0.
    """

    def __init__(self, wanted: Range, dtype: torch.dtype, *, signed: bool, threads: int):
        self.below, self.least, self.greatest = 0, 0, 0
        self._range, self._dtype, self._signed = wanted, dtype, signed
        self._few = max(_FEW // threads, 1)
        self._lock = threading.Lock()
        self._kept = True
        self._bins: Array | None = None
        self._ends = [0, 0]
        self._found: dict[int, _Met] = {}
        self._device_keys: list[torch.Tensor] = []
        self._device_counts: list[torch.Tensor] = []

    def add_blocks(self, part: Part, marks: Array | None) -> None:
        """Count keys on the CPU.

        Args:
            part: which keys.
            marks: bool, one for each key of all parts; set where the key is below the range.
        """
        integer = numpy_integer(self._dtype).type
        low, high = integer(self._range.low), integer(self._range.high)
        length = block_length(self._dtype)
        inside = np.zeros((length + 7) & ~7, bool)
        less = np.empty(length if marks is None else 0, bool)
        met = _Met()
        below = least = greatest = 0
        place = part.begin
        for keys in key_blocks(part, self._dtype):
            size = len(keys)
            flags = less[:size] if marks is None else marks[place : place + size]
            np.less(keys, low, out=flags)
            np.less_equal(keys, high, out=inside[:size])
            below += int(np.count_nonzero(flags))
            greatest = max(greatest, int(keys.max()))
            if self._signed:
                least = min(least, int(keys.min()))
            np.not_equal(flags, inside[:size], out=inside[:size])
            if np.count_nonzero(inside[:size]) > _CROWD:
                self._count_ends(keys, inside[:size])
            met.add(keys, _places(inside, size), place, with_places=self._kept)
            place += size
            if met.count >= self._few:
                self._spill(met.keys)
                met = _Met()
        with self._lock:
            self._note(below, least, greatest)
            self._found[part.begin] = met

    def add_on_device(self, keys: torch.Tensor) -> None:
        """Count keys where they are; only those inside the range are fetched, all together."""
        low, high = self._range.low, self._range.high
        self._device_keys.append(keys[(keys >= low) & (keys <= high)])
        self._device_counts.append(
            torch.stack([(keys < low).sum(), keys.min().long(), keys.max().long()])
        )
        if sum(map(len, self._device_keys)) >= self._few:
            self._spill(_arrays(self._device_keys))
            self._device_keys = []

    def fetch_counts(self) -> None:
        """Wait for the devices and add up what they counted."""
        for counts in fetched(self._device_counts):
            self._note(*counts.tolist())
        self._device_counts = []

    def finish(self) -> tuple[Array, Inside | None]:
        """The counts in the range bin by bin, and what was met there if it was little."""
        found = [self._found[begin] for begin in sorted(self._found)]
        keys = _together([k for met in found for k in met.keys] + _arrays(self._device_keys))
        bins = self._range.histogram(keys)
        if self._bins is not None:
            bins += self._bins
        bins[0] += self._ends[0]
        bins[-1] += self._ends[1]
        if not self._kept:
            return bins, None
        places = _together([p for met in found for p in met.places])
        return bins, Inside(self._range, self.below, keys, places)

    def _note(self, below: int, least: int, greatest: int) -> None:
        self.below += below
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def _spill(self, keys: list[Array]) -> None:
        """Too many to keep: from now on they are counted only."""
        with self._lock:
            self._kept = False
            for group in _groups(keys):
                bins = self._range.histogram(group)
                if self._bins is None:
                    self._bins = bins
                else:
                    self._bins += bins

    def _count_ends(self, keys: Array, inside: Array) -> None:
        """Count the keys at the two ends of the range, and take them out of ``inside``."""
        if self._range.low == self._range.high:
            found = [int(np.count_nonzero(inside)), 0]
            inside[:] = False
        else:
            found: list[int] = []
            for end in (self._range.low, self._range.high):
                met = keys == end
                met &= inside
                found.append(int(np.count_nonzero(met)))
                inside ^= met
        with self._lock:
            self._kept = False
            self._ends = [a + b for a, b in zip(self._ends, found, strict=True)]


class _Met:
    """What one thread met in the range since it last had too much of it."""

    def __init__(self) -> None:
        self.keys: list[Array] = []
        self.places: list[Array] = []
        self.count = 0

    def add(self, keys: Array, places: Array, begin: int, *, with_places: bool) -> None:
        self.keys.append(keys.take(places))  # unlike keys[places], lets other threads run
        self.count += len(places)
        if with_places:
            places += begin
            self.places.append(places.astype(np.min_scalar_type(begin + 8 * memory_order.BLOCK)))


def _places(flags: Array, size: int) -> Array:
    """The places of the true flags among the first ``size``, where few are.

    Twice as fast as numpy's flatnonzero, since whole words of eight flags are passed over.
    """
    flags[size:] = False
    words = flags.view(np.uint64)
    rows = np.flatnonzero(words != 0)
    inner = np.flatnonzero(words.take(rows).view(np.bool_))
    places = rows.take(inner >> 3)
    places <<= 3
    inner &= 7
    places += inner
    return places


def _arrays(tensors: list[torch.Tensor]) -> list[Array]:
    return [tensor.numpy() for tensor in fetched(tensors)]


def _together(arrays: list[Array]) -> Array:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def _groups(arrays: list[Array]) -> Iterator[Array]:
    """Join arrays into larger ones: few, since each costs a histogram, yet small in memory."""
    group: list[Array] = []
    for array in arrays:
        group.append(array)
        if sum(map(len, group)) >= _GROUP:
            yield _together(group)
            group = []
    if group:
        yield _together(group)
