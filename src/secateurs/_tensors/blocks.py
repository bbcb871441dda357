"""Keys of many tensors in memory, block by block, through buffers that are used again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from secateurs._tensors import memory_order
from secateurs._tensors.float_keys import Scores, key_integer, key_of, magnitude_bits
from secateurs._tensors.memory_order import flattened

Array = np.ndarray[Any, np.dtype[Any]]
Share = TypeVar("Share")
Outcome = TypeVar("Outcome")

_NUMPY = {
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.int16: np.dtype(np.int16),
}
_WORTH_A_THREAD = 1 << 20
# More would wait for memory and for Python's lock, and each has buffers of its own.
_MOST_THREADS = 4


class Source:
    """The keys of one tensor on the CPU, in the order of memory.

    Args:
        scores: the tensor.
        dtype: the float format to compare in, see `secateurs._tensors.float_keys.key_of`.

    Attributes:
        size: how many keys it has.
        dtype: the integer dtype of its keys.
    """

    __slots__ = ("_absolute", "_bits", "_dtype", "_flat", "_magnitude", "dtype", "size")

    def __init__(self, scores: Scores, dtype: torch.dtype):
        values = scores.values
        self.size = values.numel()
        self.dtype = numpy_integer(dtype)
        self._dtype, self._absolute = dtype, scores.absolute
        self._flat: torch.Tensor | None = None
        if scores.absolute and values.dtype == dtype:
            # In numpy from here on: with many small tensors, torch's views would take the time.
            self._bits = _flat_array(values.view(key_integer(dtype)).numpy())
            self._magnitude = self.dtype.type(magnitude_bits(dtype))
        else:
            self._flat = flattened(values)

    def keys(self, places: slice) -> Array:
        """The keys at some places, as a new array."""
        if self._flat is None:
            return self._bits[places] & self._magnitude
        return key_of(self._flat[places], self._dtype, absolute=self._absolute).numpy()

    def keys_into(self, start: int, stop: int, out: Array) -> None:
        """Write the keys from ``start`` to ``stop`` into an array."""
        if self._flat is None:
            np.bitwise_and(self._bits[start:stop], self._magnitude, out=out)
        else:
            out[:] = self.keys(slice(start, stop))


class Span(NamedTuple):
    """The keys of one tensor from ``start`` to ``stop``."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """What one thread goes through: spans next to each other.

    Attributes:
        spans: in order.
        begin: how many keys the parts before hold.
        end: ``begin`` and its own number of keys.
    """

    spans: tuple[Span, ...]
    begin: int
    end: int


def threads_for(elements: int) -> int:
    """How many threads to give work of this size."""
    most = min(torch.get_num_threads(), _MOST_THREADS)
    return max(1, min(most, elements // _WORTH_A_THREAD))


def in_threads(function: Callable[[Share], Outcome], shares: Sequence[Share]) -> list[Outcome]:
    """Call a function on each share, each in a thread of its own; in order."""
    if len(shares) < 2:
        return [function(share) for share in shares]
    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(function, shares))


def ranges(total: int) -> list[range]:
    """Divide ``total`` elements into one range of full blocks for each thread."""
    count = threads_for(total)
    blocks = -(-total // memory_order.BLOCK)
    size = max(-(-blocks // count), 1) * memory_order.BLOCK
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def blocks_of(part: range) -> Iterator[slice]:
    """Slices of at most `secateurs._tensors.memory_order.BLOCK` elements that cover a range."""
    for start in range(part.start, part.stop, memory_order.BLOCK):
        yield slice(start, min(start + memory_order.BLOCK, part.stop))


def share_out(sources: Sequence[Source]) -> list[Part]:
    """Divide the keys of all tensors into parts of about equal size, one for each thread.

    Returns:
        At least one part, which may be empty; in order, they cover all keys.
    """
    total = sum(source.size for source in sources)
    count = threads_for(total)
    size = max(-(-total // count), 1)
    spans: list[list[Span]] = [[] for _ in range(count)]
    place = 0
    for source in sources:
        start = 0
        while start < source.size:
            share = place // size
            stop = min(source.size, start + (share + 1) * size - place)
            spans[share].append(Span(source, start, stop))
            place += stop - start
            start = stop
    begins = [min(share * size, total) for share in range(count + 1)]
    return [Part(tuple(spans[i]), begins[i], begins[i + 1]) for i in range(count)]


def block_length(dtype: torch.dtype) -> int:
    """How many keys of a float format go into one block: as many bytes for every format."""
    return max(memory_order.BLOCK * 4 // numpy_integer(dtype).itemsize, 1)


def key_blocks(part: Part, dtype: torch.dtype) -> Iterator[Array]:
    """Yield the keys of a part in full blocks, however the tensors divide them.

    Args:
        part: what to go through.
        dtype: the float format of the keys.

    Yields:
        Integer arrays of at most `block_length` keys, valid until the next one.
    """
    block = np.empty(min(block_length(dtype), part.end - part.begin), dtype=numpy_integer(dtype))
    filled = 0
    for span in part.spans:
        place = span.start
        while place < span.stop:
            count = min(len(block) - filled, span.stop - place)
            span.source.keys_into(place, place + count, block[filled : filled + count])
            filled, place = filled + count, place + count
            if filled == len(block):
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def numpy_integer(dtype: torch.dtype) -> np.dtype[Any]:
    """The numpy dtype of the keys of a float format."""
    return _NUMPY[key_integer(dtype)]


def _flat_array(values: Array) -> Array:
    """Flatten in the order of memory: a view of every dense array."""
    if values.flags.c_contiguous:
        return values.reshape(-1)
    order = sorted(range(values.ndim), key=values.strides.__getitem__, reverse=True)
    return values.transpose(order).reshape(-1)
