"""Integer keys (see `float_keys`) of many tensors on the CPU, block by block and in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from secateurs._tensors.float_keys import Scores, key_integer, key_of, magnitude_bits
from secateurs._tensors.memory_order import BLOCK, flattened

Array = np.ndarray[Any, np.dtype[Any]]
Argument = TypeVar("Argument")
Result = TypeVar("Result")

_NUMPY = {
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.int16: np.dtype(np.int16),
}
_ELEMENTS_A_THREAD = 1 << 20
# More threads would wait for memory and for Python's lock, and each needs its own buffers.
_MOST_THREADS = 4


class TensorKeys:
    """The keys of one tensor on the CPU in a float format, in the order of memory.

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
            # numpy's views cost less than torch's, which matters with many small tensors.
            self._bits = _flat_array(values.view(key_integer(dtype)).numpy())
            self._magnitude = self.dtype.type(magnitude_bits(dtype))
        else:
            self._flat = flattened(values)

    def keys(self, indices: slice) -> Array:
        """The keys at some indices, as a new array."""
        if self._flat is None:
            return self._bits[indices] & self._magnitude
        return key_of(self._flat[indices], self._dtype, absolute=self._absolute).numpy()

    def keys_into(self, start: int, stop: int, out: Array) -> None:
        """Write the keys from ``start`` to ``stop`` into an array."""
        if self._flat is None:
            np.bitwise_and(self._bits[start:stop], self._magnitude, out=out)
        else:
            out[:] = self.keys(slice(start, stop))


class Span(NamedTuple):
    """The keys of one tensor from ``start`` to ``stop``."""

    source: TensorKeys
    start: int
    stop: int


@dataclass(frozen=True)
class Chunk:
    """The keys that one thread processes.

    Attributes:
        spans: adjacent spans, in order.
        begin: the index of the first key among the keys of all chunks.
        end: the index after the last key.
    """

    spans: tuple[Span, ...]
    begin: int
    end: int


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_for(elements: int) -> int:
    """How many threads to use for a number of elements."""
    most = min(torch.get_num_threads(), _MOST_THREADS)
    return max(1, min(most, elements // _ELEMENTS_A_THREAD))


def in_threads(
    function: Callable[[Argument], Result], arguments: Sequence[Argument]
) -> list[Result]:
    """Call a function on each argument in a separate thread; the results are in order."""
    if len(arguments) < 2:
        return [function(argument) for argument in arguments]
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(function, arguments))


def ranges(total: int, block: int = BLOCK, threads: int | None = None) -> list[range]:
    """One range of full blocks for each thread; None chooses the number of threads."""
    count = threads or threads_for(total)
    size = max(-(-total // block // count), 1) * block
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def blocks_of(elements: range, block: int = BLOCK) -> Iterator[slice]:
    """Slices of at most ``block`` elements that cover a range."""
    for start in range(elements.start, elements.stop, block):
        yield slice(start, min(start + block, elements.stop))


def share_out(sources: Sequence[TensorKeys], threads: int | None = None) -> list[Chunk]:
    """Divide the keys of all tensors into chunks of about equal size, one for each thread.

    By default their number depends on that of the keys.

    Returns:
        At least one chunk, which may be empty; in order, they cover all keys.
    """
    total = sum(source.size for source in sources)
    count = threads or threads_for(total)
    size = max(-(-total // count), 1)
    spans: list[list[Span]] = [[] for _ in range(count)]
    index = 0
    for source in sources:
        start = 0
        while start < source.size:
            number = index // size
            stop = min(source.size, start + (number + 1) * size - index)
            spans[number].append(Span(source, start, stop))
            index += stop - start
            start = stop
    begins = [min(number * size, total) for number in range(count + 1)]
    return [Chunk(tuple(spans[i]), begins[i], begins[i + 1]) for i in range(count)]


def block_length(dtype: torch.dtype, block: int = BLOCK) -> int:
    """How many keys of a float format one block has; blocks of all formats have the same bytes."""
    return max(block * 4 // numpy_integer(dtype).itemsize, 1)


def key_blocks(chunk: Chunk, dtype: torch.dtype, length: int | None = None) -> Iterator[Array]:
    """Yield the keys of a chunk in full blocks, by default of `block_length`, across tensors.

    Yields:
        Integer arrays in one buffer, which the next block overwrites.
    """
    most = min(length or block_length(dtype), chunk.end - chunk.begin)
    block = np.empty(most, dtype=numpy_integer(dtype))
    filled = 0
    for span in chunk.spans:
        start = span.start
        while start < span.stop:
            count = min(len(block) - filled, span.stop - start)
            span.source.keys_into(start, start + count, block[filled : filled + count])
            filled, start = filled + count, start + count
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
