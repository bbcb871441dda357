"""Masks of the candidates: the scores below a threshold, and the earliest that equal it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateurs._tensors import memory_order
from secateurs._tensors.blocks import (
    Array,
    Part,
    Source,
    blocks_of,
    in_threads,
    key_blocks,
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
from secateurs.selection.key_counts import KeyCounts


@dataclass(frozen=True)
class Marks:
    """One mask for each of some scores; those on the CPU lie side by side in memory.

    Attributes:
        masks: bool tensors in the scores' shapes, laid out in memory as they are.
    """

    masks: list[torch.Tensor]

    @classmethod
    def empty(cls, values: Sequence[torch.Tensor]) -> "Marks":
        """Uninitialised masks for scores of these shapes."""
        return cls(side_by_side(values, torch.bool))

    @property
    def here(self) -> torch.Tensor:
        """All masks on the CPU as one flat tensor, in the order of memory."""
        here = [mask for mask in self.masks if mask.device.type == "cpu" and mask.numel()]
        total = sum(mask.numel() for mask in here)
        return here[0].as_strided((total,), (1,)) if here else torch.empty(0, dtype=torch.bool)


def mark(
    scores: Sequence[Scores], marks: Marks, counts: KeyCounts, key: int, ties: int, tied: int
) -> None:
    """Mark the scores whose key is below ``key``, and the first ``ties`` that equal it.

    Args:
        scores: the tensors, in the order in which ties are broken.
        marks: their masks, overwritten.
        counts: made of these scores and marks, after its search for ``key``.
        key: the threshold.
        ties: how many of the scores that equal it to mark.
        tied: how many equal it.
    """
    inside, here = counts.inside, marks.here.numpy()
    tied_places: Array | None = None
    if inside is not None and inside.range.low <= key <= inside.range.high:
        keys = inside.keys[: len(inside.places)]
        here[inside.places[keys < key]] = True
        tied_places = inside.places[keys == key]
    elif counts.marked != key:
        _mark_below(here, counts, key)
    elsewhere = len(here) < counts.total
    all_tied = ties == tied
    if elsewhere:
        _mark_on_devices(scores, marks, counts.dtype, key, equal=all_tied)
    if all_tied and not len(here):
        return
    if all_tied and tied_places is not None:
        here[tied_places] = True
    elif tied_places is not None and not elsewhere:
        _mark_earliest_places(marks, tied_places, ties)
    else:
        _mark_earliest_of_all(scores, marks, counts.dtype, key, ties)


def _mark_below(out: Array, counts: KeyCounts, key: int) -> None:
    threshold = numpy_integer(counts.dtype).type(key)

    def mark_part(part: Part) -> None:
        place = part.begin
        for keys in key_blocks(part, counts.dtype):
            np.less(keys, threshold, out=out[place : place + len(keys)])
            place += len(keys)

    in_threads(mark_part, counts.parts)


def _mark_on_devices(
    scores: Sequence[Scores], marks: Marks, dtype: torch.dtype, key: int, *, equal: bool
) -> None:
    """Mark what is below ``key``, or ``equal`` to it too, without waiting for any device."""
    compare = torch.le if equal else torch.lt
    kinds: dict[tuple[torch.device, bool], tuple[list[Scores], list[torch.Tensor]]] = {}
    for tensor, mask in zip(scores, marks.masks, strict=True):
        if mask.device.type != "cpu":
            values, masks = kinds.setdefault((mask.device, tensor.absolute), ([], []))
            values.append(tensor)
            masks.append(flattened(mask))
    for values, masks in kinds.values():
        rows = joined([(mask,) for mask in masks])
        # In one piece of memory they are marked as one tensor, else each on its own.
        whole = len(rows) == 1
        groups = (
            [(values, rows[0][0])]
            if whole
            else [([one], mask) for one, mask in zip(values, masks, strict=True)]
        )
        for group, out in groups:
            place = 0
            for keys in device_blocks(group, dtype):
                compare(keys, key, out=out[place : place + len(keys)])
                place += len(keys)


def _mark_earliest_of_all(
    scores: Sequence[Scores], marks: Marks, dtype: torch.dtype, key: int, left: int
) -> None:
    """Mark the first ``left`` scores that equal ``key``, tensor by tensor."""
    pairs = list(zip(scores, marks.masks, strict=True))
    on_device = [i for i, (_, mask) in enumerate(pairs) if mask.device.type != "cpu"]
    # Counted before any is marked, so that a device is waited for once, not for each tensor.
    counts = fetched([_tied(pairs[i][0], dtype, key) for i in on_device])
    tied = dict(zip(on_device, map(int, counts), strict=True))
    for index, (tensor, mask) in enumerate(pairs):
        if left == 0:
            break
        count = tied.get(index)
        if count is None or count > left:
            left -= _mark_earliest(mask, tensor, dtype, key, left)
        elif count:
            _mark_equal(tensor, mask, dtype, key)
            left -= count


def _tied(scores: Scores, dtype: torch.dtype, key: int) -> torch.Tensor:
    """How many scores equal ``key``, as a tensor where they are."""
    flat = flattened(scores.values)
    counts = [
        torch.count_nonzero(key_of(flat[piece], dtype, absolute=scores.absolute) == key)
        for piece in pieces(flat)
    ]
    return torch.stack(counts).sum() if counts else torch.zeros((), dtype=torch.int64)


def _mark_equal(scores: Scores, mask: torch.Tensor, dtype: torch.dtype, key: int) -> None:
    flat, out = flattened(scores.values), flattened(mask)
    for piece in pieces(flat):
        out[piece] |= key_of(flat[piece], dtype, absolute=scores.absolute) == key


def _mark_earliest_places(marks: Marks, places: Array, left: int) -> None:
    """Mark the first ``left`` of some places: the earlier tensor, then the flat index.

    ``places`` are in the order of memory, as if all masks were one.
    """
    ends = np.cumsum([mask.numel() for mask in marks.masks])
    bounds = np.searchsorted(places, ends)
    for index in np.flatnonzero(np.diff(bounds, prepend=0)).tolist():
        if left == 0:
            break
        mask = marks.masks[index]
        first, last = bounds[index - 1] if index else 0, bounds[index]
        mine = places[first:last] - (ends[index] - mask.numel())
        if len(mine) > left:
            mine = _by_flat_index(mine, mask)[:left]
        flattened(mask).numpy()[mine] = True
        left -= len(mine)


def _by_flat_index(places: Array, mask: torch.Tensor) -> Array:
    """Sort places in the order of memory by flat index."""
    if mask.is_contiguous():
        return places
    order = storage_order(mask)
    inner = np.unravel_index(places, [mask.shape[dimension] for dimension in order])
    outer = np.ravel_multi_index([inner[i] for i in inverse(order)], tuple(mask.shape))
    return places[np.argsort(outer)]


def _mark_earliest(
    mask: torch.Tensor, scores: Scores, dtype: torch.dtype, key: int, most: int
) -> int:
    """Mark the scores that equal ``key``, at most ``most``, by flat index; return how many."""
    if mask.device.type == "cpu" and scores.values.is_contiguous():
        return _mark_earliest_here(mask.view(-1).numpy(), Source(scores, dtype), key, most)
    taken = 0
    for values, flags in logical_pieces(scores.values, mask):
        if taken == most:
            break
        tied = key_of(values, dtype, absolute=scores.absolute) == key
        count = int(torch.count_nonzero(tied))
        if count <= most - taken:
            flags.logical_or_(tied)
        else:
            places = tied.reshape(-1).nonzero().reshape(-1)[: most - taken]
            flags[torch.unravel_index(places, flags.shape)] = True
        taken += min(count, most - taken)
    return taken


def _mark_earliest_here(flags: Array, source: Source, key: int, most: int) -> int:
    keys = np.empty(min(memory_order.BLOCK, source.size), source.dtype)
    tied = np.empty(len(keys), bool)
    taken = 0
    for block in blocks_of(range(source.size)):
        if taken == most:
            break
        size = block.stop - block.start
        source.keys_into(block.start, block.stop, keys[:size])
        np.equal(keys[:size], key, out=tied[:size])
        count = int(np.count_nonzero(tied[:size]))
        if count <= most - taken:
            np.logical_or(flags[block], tied[:size], out=flags[block])
        else:
            flags[block.start + np.flatnonzero(tied[:size])[: most - taken]] = True
        taken += min(count, most - taken)
    return taken
