"""One pass over keys: how many lie below a range, and what lies inside it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateurs import layout
from secateurs.blocks import Array, Span, key_blocks, numpy_integer

# Keys inside a range are kept while they are so few; then nothing has to be read twice.
_FEW = 1 << 19


@dataclass(frozen=True)
class Range:
    """Keys from ``low`` to ``high``, both included, in bins of ``2**shift`` consecutive keys."""

    low: int
    high: int
    shift: int

    def histogram(self, keys: Array) -> Array:
        """Count keys that all lie in the range, bin by bin; int64."""
        bins = ((self.high - self.low) >> self.shift) + 1
        # Unsigned, since the keys of signed float64 scores span more than an int64 holds.
        offsets = keys.astype(np.int64).view(np.uint64) - np.uint64(self.low % 2**64)
        offsets >>= np.uint64(self.shift)
        return np.bincount(offsets.view(np.int64), minlength=bins)


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
        self._bins: Array | None = None
        self._found: dict[int, tuple[list[Array], list[Array]]] = {}
        self._elsewhere: list[Array] = []

    def add_blocks(self, spans: Sequence[Span], begin: int, marks: Array | None) -> None:
        """Count the keys of parts of tensors on the CPU.

        Args:
            spans: next to each other in the order of memory.
            begin: the place of the first key among all elements on the CPU.
            marks: bool, one for each key of ``spans``; set where the key is below the range.
        """
        integer = numpy_integer(self._dtype).type
        low, high = integer(self._range.low), integer(self._range.high)
        less, inside = np.empty(layout.BLOCK, bool), np.empty(layout.BLOCK, bool)
        below = least = greatest = place = waiting = 0
        keys_met: list[Array] = []
        places: list[Array] = []
        for keys in key_blocks(spans, self._dtype):
            size = len(keys)
            flags = less[:size] if marks is None else marks[place : place + size]
            np.less(keys, low, out=flags)
            np.less_equal(keys, high, out=inside[:size])
            below += int(np.count_nonzero(flags))
            greatest = max(greatest, int(keys.max()))
            if self._signed:
                least = min(least, int(keys.min()))
            np.not_equal(flags, inside[:size], out=inside[:size])
            here = np.flatnonzero(inside[:size])
            keys_met.append(keys.take(here))  # unlike keys[here], lets other threads run
            places.append(here + (begin + place))
            place, waiting = place + size, waiting + len(here)
            if waiting >= self._few:
                self._spill(keys_met)
                keys_met, places, waiting = [], [], 0
        with self._lock:
            self._note(below, least, greatest)
            self._found[begin] = keys_met, places

    def add_on_device(self, keys: torch.Tensor) -> None:
        """Count keys where they are; only those inside the range are fetched."""
        low, high = self._range.low, self._range.high
        inside = keys[(keys >= low) & (keys <= high)].cpu().numpy()
        found = torch.stack([(keys < low).sum(), keys.min().long(), keys.max().long()]).tolist()
        self._note(*found)
        self._elsewhere.append(inside)
        if sum(map(len, self._elsewhere)) >= self._few:
            self._spill(self._elsewhere)
            self._elsewhere = []

    def finish(self) -> tuple[Array, Inside | None]:
        """The counts in the range bin by bin, and what was met there if it was little."""
        found = [self._found[begin] for begin in sorted(self._found)]
        keys = _together([k for keys, _ in found for k in keys] + self._elsewhere, np.int64)
        bins = self._range.histogram(keys)
        if self._bins is not None:
            return self._bins + bins, None
        places = _together([p for _, places in found for p in places], np.intp)
        return bins, Inside(self._range, self.below, keys, places)

    def _note(self, below: int, least: int, greatest: int) -> None:
        self.below += below
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def _spill(self, keys: list[Array]) -> None:
        """Too many to keep: from now on they are counted only."""
        with self._lock:
            bins = self._range.histogram(_together(keys, np.int64))
            self._bins = bins if self._bins is None else self._bins + bins


def _together(arrays: list[Array], dtype: type) -> Array:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)
