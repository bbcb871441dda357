"""One pass over keys: counts how many are below a range, and how many are in each of its bins."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs._tensors.device_keys import fetched
from secateurs._tensors.memory_order import BLOCK


@dataclass(frozen=True)
class Sizes:
    """How many keys a search reads and keeps at a time. Its result does not depend on these.

    Attributes:
        block: how many elements a CPU compares at a time.
        sample: how many keys the first range is guessed from.
        kept: the most keys in a range that are kept, so that they need not be read again; more are
            only counted.
        crowd: if a block has more keys in the range, those equal to its two ends are counted, not
            kept: in a narrow range most keys repeat one or two values.
        fine: a range of fewer possible keys gets a bin for each key, so that a narrower range
            inside it needs no further pass.
        bins_log2: a range has at most ``2**bins_log2`` bins.
        threads: how many threads count; None chooses by the number of scores.
    """

    block: int = BLOCK
    sample: int = 1 << 16
    kept: int = 3 << 17
    crowd: int = BLOCK >> 3
    fine: int = 1 << 23
    bins_log2: int = 18
    threads: int | None = None


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
        """Count keys that are all in the range, bin by bin; int64."""
        counts = np.zeros(self.bins, np.int64)
        self.add_to(counts, keys)
        return counts

    def add_to(self, counts: Array, keys: Array) -> None:
        """Add the counts of keys that are all in the range to ``counts``, one for each bin."""
        # Unsigned, since the keys of signed float64 scores span more than an int64 holds.
        offsets = keys.astype(np.int64).view(np.uint64)
        offsets -= np.uint64(self.low % 2**64)
        offsets >>= np.uint64(self.shift)
        indices = offsets.view(np.int64)
        if len(indices) < len(counts):
            np.add.at(counts, indices, 1)
        else:
            counts += np.bincount(indices, minlength=len(counts))


@dataclass(frozen=True)
class Counted:
    """The result of one pass: the keys in its range if they are few, else their counts.

    Attributes:
        range: the range.
        below: how many keys are less than its ``low``.
        keys: the keys in the range, those on the CPU first; None if they were too many to keep.
        indices: for each of the keys on the CPU, its index among all elements on the CPU in the
            order of memory; ascending.
        bins: the counts, one for each bin of the range; None if the keys were kept.
    """

    range: Range
    below: int
    keys: Array | None
    indices: Array
    bins: Array | None

    def includes(self, key: int) -> bool:
        """Whether a key is in the range."""
        return self.range.low <= key <= self.range.high

    def count(self, wanted: Range) -> tuple[int, Array] | None:
        """Counts below and in the bins of another range; None if that needs another pass."""
        own = self.range
        if not (self.includes(wanted.low) and self.includes(wanted.high)):
            return None
        if self.keys is not None:
            if (wanted.low, wanted.high) == (own.low, own.high):
                return self.below, wanted.histogram(self.keys)
            inside = self.keys[(self.keys >= wanted.low) & (self.keys <= wanted.high)]
            below = self.below + int(np.count_nonzero(self.keys < wanted.low))
            return below, wanted.histogram(inside)
        if self.bins is None or own == wanted:
            return None if self.bins is None else (self.below, self.bins)
        if own.shift:
            return None
        first = wanted.low - own.low
        bins = self.bins[first : wanted.high - own.low + 1]
        below = self.below + int(self.bins[:first].sum())
        return below, np.add.reduceat(bins, np.arange(0, len(bins), 1 << wanted.shift))


class KeyPass:
    """One pass over keys, to which several threads add their blocks.

    Args:
        wanted: the range to count in.
        dtype: the float format of the keys.
        sizes: how many keys to keep.
        signed: whether keys may be negative.
        threads: how many threads add blocks.

    Attributes:
        below: how many keys are less than ``wanted.low``.
        least: the least key found, at most 0.
        greatest: the greatest key found, at least 0.
    """

    def __init__(
        self, wanted: Range, dtype: torch.dtype, sizes: Sizes, *, signed: bool, threads: int = 1
    ):
        self.below, self.least, self.greatest = 0, 0, 0
        fine = wanted.high - wanted.low < sizes.fine
        self._range = replace(wanted, shift=0) if fine else wanted
        self._integer, self._signed = numpy_integer(dtype).type, signed
        self._most = max(sizes.kept // threads, 1)
        self._crowd = sizes.crowd
        self._lock = threading.Lock()
        self._bins: Array | None = None  # made when there are too many keys to keep
        self._found: dict[int, _KeptKeys] = {}
        self._device_keys: list[torch.Tensor] = []
        self._device_counts: list[torch.Tensor] = []

    def add(self, blocks: Iterable[Array], begin: int = 0, marks: Array | None = None) -> None:
        """Count keys on the CPU.

        Args:
            blocks: the keys, in arrays that may be overwritten when the next one is read.
            begin: the index of the first key among all elements on the CPU.
            marks: bool, one for each element on the CPU; set where the key is below the range.
        """
        low, high = self._integer(self._range.low), self._integer(self._range.high)
        inside = less = np.empty(0, bool)
        found = _KeptKeys()
        below = least = greatest = 0
        index = begin
        for keys in blocks:
            size = len(keys)
            if size > len(inside):
                inside = np.zeros((size + 7) & ~7, bool)
                less = np.empty(len(inside) if marks is None else 0, bool)
            flags = less[:size] if marks is None else marks[index : index + size]
            np.less(keys, low, out=flags)
            np.less_equal(keys, high, out=inside[:size])
            below += int(np.count_nonzero(flags))
            greatest = max(greatest, int(keys.max()))
            if self._signed:
                least = min(least, int(keys.min()))
            np.not_equal(flags, inside[:size], out=inside[:size])
            if np.count_nonzero(inside[:size]) > self._crowd:
                self._count_ends(keys, inside[:size])
            found.add(keys, _indices(inside, size), index, with_indices=self._bins is None)
            index += size
            if found.count >= self._most:
                self._stop_keeping(found.keys)
                found = _KeptKeys()
        with self._lock:
            self._note(below, least, greatest)
            self._found[begin] = found

    def add_on_device(self, keys: torch.Tensor) -> None:
        """Count keys on their device; `finish` fetches those inside the range, all together."""
        low, high = self._range.low, self._range.high
        self._device_keys.append(keys[(keys >= low) & (keys <= high)])
        self._device_counts.append(
            torch.stack([(keys < low).sum(), keys.min().long(), keys.max().long()])
        )
        if sum(map(len, self._device_keys)) >= self._most:
            self._stop_keeping(_arrays(self._device_keys))
            self._device_keys = []

    def finish(self) -> Counted:
        """The result of the pass; waits for the devices."""
        for counts in fetched(self._device_counts):
            self._note(*counts.tolist())
        found = [self._found[begin] for begin in sorted(self._found)]
        keys = [keys for one in found for keys in one.keys] + _arrays(self._device_keys)
        if self._bins is not None:
            self._stop_keeping(keys)
            return Counted(self._range, self.below, None, np.empty(0, np.int64), self._bins)
        indices = _joined([indices for one in found for indices in one.indices])
        return Counted(self._range, self.below, _joined(keys), indices, None)

    def _note(self, below: int, least: int, greatest: int) -> None:
        self.below += below
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def _stop_keeping(self, keys: Sequence[Array]) -> None:
        """Count these keys in the range, and from now on keep none."""
        with self._lock:
            self._range.add_to(self._counts(), _joined(keys))

    def _count_ends(self, keys: Array, inside: Array) -> None:
        """Count the keys equal to the ends of the range, and clear their flags in ``inside``."""
        low, high = self._range.low, self._range.high
        counts: list[int] = []
        for end in () if low == high else (low, high):
            equal = keys == end
            equal &= inside
            counts.append(int(np.count_nonzero(equal)))
            inside ^= equal
        if low == high:  # all of them
            counts.append(int(np.count_nonzero(inside)))
            inside[:] = False
        with self._lock:
            bins = self._counts()
            bins[0] += counts[0]
            bins[-1] += sum(counts[1:])

    def _counts(self) -> Array:
        if self._bins is None:
            self._bins = np.zeros(self._range.bins, np.int64)
        return self._bins


class _KeptKeys:
    """The keys in the range that one thread keeps."""

    def __init__(self) -> None:
        self.keys: list[Array] = []
        self.indices: list[Array] = []
        self.count = 0

    def add(self, keys: Array, indices: Array, begin: int, *, with_indices: bool) -> None:
        self.keys.append(keys.take(indices))  # unlike keys[indices], lets other threads run
        self.count += len(indices)
        if with_indices:
            indices += begin
            self.indices.append(indices.astype(np.min_scalar_type(begin + len(keys))))


def _indices(flags: Array, size: int) -> Array:
    """The indices of the true flags among the first ``size``, if few are true.

    Twice as fast as numpy's flatnonzero, since it skips eight false flags at once.
    """
    flags[size:] = False
    words = flags.view(np.uint64)
    rows = np.flatnonzero(words != 0)
    inner = np.flatnonzero(words.take(rows).view(np.bool_))
    indices = rows.take(inner >> 3)
    indices <<= 3
    inner &= 7
    indices += inner
    return indices


def _arrays(tensors: Sequence[torch.Tensor]) -> list[Array]:
    return [tensor.numpy() for tensor in fetched(tensors)]


def _joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)
