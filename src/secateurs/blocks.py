"""Keys of many tensors in memory, block by block, through buffers that are used again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from secateurs import layout
from secateurs.keys import key_integer, key_of, magnitude_bits
from secateurs.layout import storage_order

Array = np.ndarray[Any, np.dtype[Any]]

_WORTH_A_THREAD = 1 << 20


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


def multiply_blocks(source: torch.Tensor, keep: torch.Tensor, target: torch.Tensor) -> None:
    """Write ``source * keep`` into ``target``: what torch.mul does, several times as fast.

    torch converts the mask element by element; numpy converts blocks of it in the cache.

    Args:
        source: integers on the CPU, any memory layout.
        keep: bool, broadcasts to the shape of ``source``.
        target: integers of the same dtype and shape, overwritten.
    """
    order = storage_order(source)
    parts = [tensor.permute(order) for tensor in (source, keep.expand(source.shape), target)]
    if not all(part.is_contiguous() for part in parts):
        np.multiply(source.numpy(), keep.numpy(), out=target.numpy())
        return
    numbers, flags, out = (part.view(-1).numpy() for part in parts)
    for start in range(0, len(numbers), layout.BLOCK):
        block = slice(start, start + layout.BLOCK)
        np.multiply(numbers[block], flags[block], out=out[block])


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
