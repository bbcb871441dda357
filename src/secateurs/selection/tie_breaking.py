"""Masks of the candidates: scores below a threshold, and the earliest of those equal to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateurs._tensors.blocks import (
    Array,
    Chunk,
    TensorKeys,
    blocks_of,
    in_threads,
    numpy_integer,
)
from secateurs._tensors.device_keys import device_blocks, fetched
from secateurs._tensors.float_keys import Scores, key_of
from secateurs._tensors.memory_order import (
    flattened,
    inverse,
    joined,
    logical_pieces,
    pieces,
    side_by_side,
    storage_order,
)
from secateurs.selection.tensor_counts import TensorCounts


class Ties:
    """Chooses the earliest of the units whose score equals the threshold, block after block.

    Args:
        left: how many to choose.

    Attributes:
        left: how many are still to be chosen.
    """

    def __init__(self, left: int):
        self.left = left

    def take(self, tied: Array) -> Array:
        """Keep the earliest ``left`` of the true flags, and clear the others."""
        count = int(np.count_nonzero(tied))
        if count > self.left:
            tied[np.flatnonzero(tied)[self.left :]] = False
            count = self.left
        self.left -= count
        return tied


@dataclass(frozen=True)
class Marks:
    """One mask for each tensor of scores; those on the CPU are adjacent in memory.

    Attributes:
        masks: bool tensors with the shapes and memory layouts of the scores.
    """

    masks: list[torch.Tensor]

    @classmethod
    def empty(cls, values: Sequence[torch.Tensor]) -> "Marks":
        """Uninitialised masks for scores of these shapes."""
        return cls(side_by_side(values, torch.bool))

    @property
    def on_cpu(self) -> torch.Tensor:
        """All masks on the CPU as one flat tensor, in the order of memory."""
        masks = [mask for mask in self.masks if mask.device.type == "cpu" and mask.numel()]
        if not masks:
            return torch.empty(0, dtype=torch.bool, device="cpu")
        return masks[0].as_strided((sum(mask.numel() for mask in masks),), (1,))


def mark(
    scores: Sequence[Scores], marks: Marks, counts: TensorCounts, below: int, ties: int
) -> None:
    """Mark the scores whose key is less than ``below``, and the first ``ties`` that equal it.

    Args:
        scores: the tensors, in the order in which ties are broken.
        marks: their masks, overwritten.
        counts: made of these scores and marks.
        below: see `secateurs.selection.threshold.Threshold`.
        ties: see `secateurs.selection.threshold.Threshold`.
    """
    last, on_cpu = counts.last, marks.on_cpu.numpy()
    tied: Array | None = None
    if last is not None and last.keys is not None and last.includes(below - (ties == 0)):
        keys = last.keys[: len(last.indices)]
        on_cpu[last.indices[keys < below]] = True
        tied = last.indices[keys == below] if ties else None
    elif last is None or last.range.low != below:  # else the last pass has marked them already
        _mark_below(on_cpu, counts, below)
    on_device = len(on_cpu) < counts.total
    if on_device:
        _mark_on_devices(scores, marks, counts.dtype, below)
    if ties and tied is not None and not on_device:
        _mark_earliest_indices(marks, tied, ties)
    elif ties:
        _mark_earliest_of_all(scores, marks, counts, below, ties)


def _mark_below(out: Array, counts: TensorCounts, below: int) -> None:
    threshold = numpy_integer(counts.dtype).type(below)

    def mark_chunk(chunk: Chunk) -> None:
        index = chunk.begin
        for keys in counts.blocks(chunk):
            np.less(keys, threshold, out=out[index : index + len(keys)])
            index += len(keys)

    in_threads(mark_chunk, counts.chunks)


def _mark_on_devices(
    scores: Sequence[Scores], marks: Marks, dtype: torch.dtype, below: int
) -> None:
    """Mark scores below a key that are not on the CPU, without waiting for any device."""
    kinds: dict[tuple[torch.device, bool], tuple[list[Scores], list[torch.Tensor]]] = {}
    for tensor, mask in zip(scores, marks.masks, strict=True):
        if mask.device.type != "cpu":
            values, masks = kinds.setdefault((mask.device, tensor.absolute), ([], []))
            values.append(tensor)
            masks.append(flattened(mask))
    for values, masks in kinds.values():
        rows = joined([(mask,) for mask in masks])
        groups = [([one], mask) for one, mask in zip(values, masks, strict=True)]
        if len(rows) == 1:  # all adjacent in memory: they are marked as one tensor
            groups = [(values, rows[0][0])]
        for group, out in groups:
            index = 0
            for keys in device_blocks(group, dtype):
                torch.lt(keys, below, out=out[index : index + len(keys)])
                index += len(keys)


def _mark_earliest_of_all(
    scores: Sequence[Scores], marks: Marks, counts: TensorCounts, key: int, most: int
) -> None:
    """Mark the first ``most`` scores that equal ``key``, tensor by tensor."""
    dtype, ties = counts.dtype, Ties(most)
    pairs = list(zip(scores, marks.masks, strict=True))
    on_device = [i for i, (_, mask) in enumerate(pairs) if mask.device.type != "cpu"]
    # All are counted before any is marked, to wait for a device once, not for each tensor.
    device_counts = fetched([_tied(pairs[i][0], dtype, key) for i in on_device])
    tied = dict(zip(on_device, map(int, device_counts), strict=True))
    for index, (tensor, mask) in enumerate(pairs):
        if ties.left == 0:
            break
        count = tied.get(index)
        if count is None or count > ties.left:
            _mark_earliest(mask, tensor, dtype, key, ties, counts.sizes.block)
        elif count:
            _mark_equal(tensor, mask, dtype, key)
            ties.left -= count


def _tied(scores: Scores, dtype: torch.dtype, key: int) -> torch.Tensor:
    """How many scores equal ``key``, as a tensor on their device."""
    flat = flattened(scores.values)
    counts = [
        torch.count_nonzero(key_of(flat[piece], dtype, absolute=scores.absolute) == key)
        for piece in pieces(flat)
    ]
    return torch.stack(counts).sum() if counts else flat.new_zeros((), dtype=torch.int64)


def _mark_equal(scores: Scores, mask: torch.Tensor, dtype: torch.dtype, key: int) -> None:
    flat, out = flattened(scores.values), flattened(mask)
    for piece in pieces(flat):
        out[piece] |= key_of(flat[piece], dtype, absolute=scores.absolute) == key


def _mark_earliest_indices(marks: Marks, indices: Array, left: int) -> None:
    """Mark the first ``left`` of these elements: by tensor, then by flat index.

    ``indices`` are in the order of memory, counted through all masks.
    """
    ends = np.cumsum([mask.numel() for mask in marks.masks])
    bounds = np.searchsorted(indices, ends)
    for number in np.flatnonzero(np.diff(bounds, prepend=0)).tolist():
        if left == 0:
            break
        mask = marks.masks[number]
        first, last = bounds[number - 1] if number else 0, bounds[number]
        own = indices[first:last] - (ends[number] - mask.numel())
        if len(own) > left:
            own = _by_flat_index(own, mask)[:left]
        flattened(mask).numpy()[own] = True
        left -= len(own)


def _by_flat_index(indices: Array, mask: torch.Tensor) -> Array:
    """Sort indices into memory by their flat indices."""
    if mask.is_contiguous():
        return indices
    order = storage_order(mask)
    inner = np.unravel_index(indices, [mask.shape[dimension] for dimension in order])
    outer = np.ravel_multi_index([inner[i] for i in inverse(order)], tuple(mask.shape))
    return indices[np.argsort(outer)]


def _mark_earliest(
    mask: torch.Tensor, scores: Scores, dtype: torch.dtype, key: int, ties: Ties, block: int
) -> None:
    """Mark the first scores that equal ``key``, by flat index, while ties are left."""
    if mask.device.type == "cpu" and scores.values.is_contiguous():
        flags = mask.view(-1).numpy()
        _mark_earliest_contiguous(flags, TensorKeys(scores, dtype), key, ties, block)
        return
    for values, part in logical_pieces(scores.values, mask, block=block):
        if ties.left == 0:
            break
        tied = key_of(values, dtype, absolute=scores.absolute) == key
        count = int(torch.count_nonzero(tied))
        if count <= ties.left:
            part.logical_or_(tied)
        else:
            indices = tied.reshape(-1).nonzero().reshape(-1)[: ties.left]
            part[torch.unravel_index(indices, part.shape)] = True
        ties.left -= min(count, ties.left)


def _mark_earliest_contiguous(
    flags: Array, keys: TensorKeys, key: int, ties: Ties, block: int
) -> None:
    # Once: to allocate for each block would take longer than the rest.
    buffer = np.empty(min(block, keys.size), keys.dtype)
    tied = np.empty(len(buffer), bool)
    for piece in blocks_of(range(keys.size), block):
        if ties.left == 0:
            break
        size = piece.stop - piece.start
        keys.keys_into(piece.start, piece.stop, buffer[:size])
        np.equal(buffer[:size], key, out=tied[:size])
        np.logical_or(flags[piece], ties.take(tied[:size]), out=flags[piece])
