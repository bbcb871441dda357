"""Keys of many tensors in memory, block by block, through buffers that are used again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from secateurs import layout
from secateurs.keys import key_integer, key_of, magnitude_bits

Array = np.ndarray[Any, np.dtype[Any]]
Share = TypeVar("Share")
Outcome = TypeVar("Outcome")

_WORTH_A_THREAD = 1 << 20
# More would wait for memory and for Python's lock, and each has buffers of its own.
_MOST_THREADS = 8


@dataclass(frozen=True)
class Span:
    """A part of one flat tensor on the CPU.

    Attributes:
        index: which of the tensors it is.
        flat: the scores.
        absolute: whether the score is the absolute value.
        start: the first element.
        stop: behind the last element.
    """

    index: int
    flat: torch.Tensor
    absolute: bool
    start: int
    stop: int


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
    blocks = -(-total // layout.BLOCK)
    size = max(-(-blocks // count), 1) * layout.BLOCK
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def blocks_of(part: range) -> Iterator[slice]:
    """Slices of at most `secateurs.layout.BLOCK` elements that cover a range."""
    for start in range(part.start, part.stop, layout.BLOCK):
        yield slice(start, min(start + layout.BLOCK, part.stop))


def share_out(flats: Sequence[tuple[torch.Tensor, bool]], most: int) -> list[list[Span]]:
    """Divide the tensors on the CPU into shares of about equal size, at most one a thread.

    Args:
        flats: pairs of a flat tensor and whether its absolute values count; those on other devices
            are left out.
        most: the most shares; small work gets fewer.

    Returns:
        At least one share, which may be empty; in order, they cover all elements.
    """
    here = [i for i, (flat, _) in enumerate(flats) if flat.device.type == "cpu"]
    total = sum(flats[i][0].numel() for i in here)
    count = max(1, min(most, total // _WORTH_A_THREAD))
    size = -(-total // count)
    shares: list[list[Span]] = [[] for _ in range(count)]
    place = 0
    for index in here:
        flat, absolute = flats[index]
        start = 0
        while start < flat.numel():
            share = place // size
            stop = min(flat.numel(), start + (share + 1) * size - place)
            shares[share].append(Span(index, flat, absolute, start, stop))
            place += stop - start
            start = stop
    return shares


def key_blocks(spans: Sequence[Span], dtype: torch.dtype) -> Iterator[Array]:
    """Yield the keys of all spans in full blocks, however the tensors divide them.

    Args:
        spans: parts of tensors on the CPU.
        dtype: the float format to compare in, see `secateurs.keys.key_of`.

    Yields:
        Integer arrays of at most `secateurs.layout.BLOCK` keys, valid until the next one.
    """
    total = sum(span.stop - span.start for span in spans)
    block = np.empty(min(layout.BLOCK, total), dtype=numpy_integer(dtype))
    filled = 0
    for span in spans:
        place, keys_into = span.start, _writer(span, dtype)
        while place < span.stop:
            count = min(len(block) - filled, span.stop - place)
            keys_into(place, place + count, block[filled : filled + count])
            filled, place = filled + count, place + count
            if filled == len(block):
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def numpy_integer(dtype: torch.dtype) -> np.dtype[Any]:
    """The numpy dtype of the keys of a float format."""
    return torch.empty(0, dtype=key_integer(dtype)).numpy().dtype


def _writer(span: Span, dtype: torch.dtype) -> Any:
    """Return a function that writes the keys from ``start`` to ``stop`` into an array."""
    flat = span.flat
    if span.absolute and flat.dtype == dtype:
        bits = flat.view(key_integer(dtype)).numpy()
        magnitude = bits.dtype.type(magnitude_bits(dtype))

        def masked(start: int, stop: int, out: Array) -> None:
            np.bitwise_and(bits[start:stop], magnitude, out=out)

        return masked

    def converted(start: int, stop: int, out: Array) -> None:
        out[:] = key_of(flat[start:stop], dtype, absolute=span.absolute).numpy()

    return converted
