"""One pass over keys: how many are below a range, and how many are in each bin of it."""

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
    """How much a search looks at and keeps at a time: what it finds does not depend on them.

    Attributes:
        block: elements looked at together on a CPU.
        sample: keys from which the first range is guessed.
        kept: keys inside a range are kept while they are fewer; then nothing is read twice.
        crowd: when a block has more keys inside a range, those at its two ends are counted instead
            of kept: in a narrow range they are mostly one or two values, over and over.
        fine: a range of fewer possible keys is counted key by key, so that no narrower range within
            it needs another pass.
        bins_log2: at most ``2**bins_log2`` bins are summed up at a time.
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
        """Count keys that all lie in the range, bin by bin; int64."""
        counts = np.zeros(self.bins, np.int64)
        self.add_to(counts, keys)
        return counts

    def add_to(self, counts: Array, keys: Array) -> None:
        """Add the counts of keys that all lie in the range to ``counts``, one a bin."""
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
    """What one pass found in its range: the keys themselves if they were few, else their counts.

    Attributes:
        range: the range.
        below: how many keys are less than its ``low``.
        keys: the keys in the range, those on the CPU first; None if they were too many to keep.
        indices: for each of those on the CPU its index among all elements on the CPU, in the order
            of memory; ascending.
        bins: the counts, one a bin of the range; None if the keys were kept.
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
        """Counts below and in bins of another range; None if they do not follow from this pass."""
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
    """Counts of one pass, added to by several threads.

    Args:
        wanted: the range that is looked at closely.
        dtype: the float format of the keys.
        sizes: how much is kept.
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
        self._found: dict[int, _Found] = {}
        self._device_keys: list[torch.Tensor] = []
        self._device_counts: list[torch.Tensor] = []

    def add(self, blocks: Iterable[Array], begin: int = 0, marks: Array | None = None) -> None:
        """Count keys on the CPU.

        Args:
            blocks: the keys, in arrays that may be overwritten once the next is asked for.
            begin: the index of the first among all elements on the CPU.
            marks: bool, one for each of these elements; set where the key is below the range.
        """
        low, high = self._integer(self._range.low), self._integer(self._range.high)
        inside = less = np.empty(0, bool)
        found = _Found()
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
                found = _Found()
        with self._lock:
            self._note(below, least, greatest)
            self._found[begin] = found

    def add_on_device(self, keys: torch.Tensor) -> None:
        """Count keys where they are; only those inside the range are fetched, all together."""
        low, high = self._range.low, self._range.high
        self._device_keys.append(keys[(keys >= low) & (keys <= high)])
        self._device_counts.append(
            torch.stack([(keys < low).sum(), keys.min().long(), keys.max().long()])
        )
        if sum(map(len, self._device_keys)) >= self._most:
            self._stop_keeping(_arrays(self._device_keys))
            self._device_keys = []

    def finish(self) -> Counted:
        """What was found; waits for the devices."""
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
        """From now on the keys in the range are counted only, these as well."""
        with self._lock:
            self._range.add_to(self._counts(), _joined(keys))

    def _count_ends(self, keys: Array, inside: Array) -> None:
        """Count the keys at the two ends of the range, and take them out of ``inside``."""
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


class _Found:
    """What one thread found in the range since it last had too much of it."""

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
    """The indices of the true flags among the first ``size``, where few are.

    Twice as fast as numpy's flatnonzero, since whole words of eight flags are passed over.
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
