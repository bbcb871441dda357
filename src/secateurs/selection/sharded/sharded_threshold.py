"""The exact k smallest scores over all ranks: each marks those that lie with it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from secateurs._tensors.float_keys import Scores, key_of
from secateurs._tensors.memory_order import pieces
from secateurs.distributed.process_group import Array, ProcessGroup
from secateurs.selection.key_counts import KeyCounts
from secateurs.selection.sharded.sharded_histogram import BINS_LOG2, PlaceCounts, RankCounts
from secateurs.selection.threshold import Threshold, find_threshold
from secateurs.selection.tie_breaking import Marks, mark
from secateurs.selection.unit_scores import ShardScores


def choose_parts(
    groups: Sequence[Sequence[Scores]], p_prune: float, ranks: ProcessGroup
) -> dict[str, torch.Tensor]:
    """Choose the candidates of every group: see `secateurs.select`.

    Args:
        groups: from `secateurs.selection.unit_scores.score_all`.
        p_prune: the ratio of units.
        ranks: those that hold the model.

    Returns:
        For each name a bool tensor, one for each unit that lies here.
    """
    chosen: dict[str, torch.Tensor] = {}
    for group in groups:
        parts = [part for part in group if isinstance(part, ShardScores)]
        masks = _choose(parts, round(p_prune * _total(parts)), ranks)
        chosen |= {part.name: mask for part, mask in zip(parts, masks, strict=True)}
    return chosen


def _choose(group: Sequence[ShardScores], k: int, ranks: ProcessGroup) -> list[torch.Tensor]:
    """Mark the k smallest of all scores of all ranks together.

    Ties go to the earlier tensor, then to the smaller flat index in the whole tensor, however the
    ranks divide it.

    Args:
        group: the scores that lie here, in the order in which ties are broken.
        k: how many, from 0 to the number of units.
        ranks: all of which must call.

    Returns:
        For each tensor a bool tensor, one for each unit that lies here.

    Raises:
        InvalidArgumentError: on all ranks, if a score is NaN; the parameter is named.
    """
    counted = [part for part in group if part.shard.counted]
    copies = [part for part in group if not part.shard.counted]
    marks, others = (Marks.empty([part.values for part in parts]) for parts in (counted, copies))
    # Every tensor stands in both, with or without elements, for all must agree on the keys' format.
    counts = RankCounts(_with_empty(counted, copies), marks.here, _total(group), ranks)
    masks = dict(zip((part.name for part in counted), marks.masks, strict=True))
    masks |= zip((part.name for part in copies), others.masks, strict=True)
    if k == 0:
        counts.count(counts.low, counts.low, 0)  # for its refusal of NaN
        for mask in masks.values():
            mask.fill_(False)
        return [masks[part.name] for part in group]
    threshold = find_threshold(counts, k, BINS_LOG2)
    every = threshold.ties == threshold.tied
    key = threshold.key + every  # if all that equal the threshold are taken, they lie below
    mark(counted, marks, counts.here, key, ties=0, tied=1)
    mark(copies, others, KeyCounts(_with_empty(copies, counted), others.here), key, ties=0, tied=1)
    made = [masks[part.name] for part in group]
    if not every:
        tied = _counted_places(counted, counts.here, threshold.key)
        _mark_ties(group, made, tied, counts.here.dtype, threshold, ranks)
    return made


def _mark_ties(
    group: Sequence[ShardScores],
    masks: Sequence[torch.Tensor],
    tied: Mapping[str, Array],
    dtype: torch.dtype,
    threshold: Threshold,
    ranks: ProcessGroup,
) -> None:
    """Mark the earliest scores that equal the threshold, on whichever ranks they lie."""
    totals = ranks.sum(np.array([len(tied.get(part.name, ())) for part in group])).tolist()
    left = threshold.ties
    for part, mask, total in zip(group, masks, totals, strict=True):
        if left == 0:
            break
        places = tied[part.name] if part.shard.counted else _places(part, dtype, threshold.key)
        if total > left:
            whole = part.shard.indices_of(places)
            size = torch.Size(part.shard.shape).numel()
            counts = PlaceCounts(whole if part.shard.counted else whole[:0], total, size, ranks)
            places = places[whole <= find_threshold(counts, left, BINS_LOG2).key]
        if len(places):
            index = torch.from_numpy(places).to(mask.device)
            mask[torch.unravel_index(index, mask.shape)] = True
        left -= min(total, left)


def _counted_places(
    counted: Sequence[ShardScores], counts: KeyCounts, key: int
) -> dict[str, Array]:
    """`_places` of all that this rank counts; mostly the last pass has met them."""
    inside = counts.inside
    if (
        inside is None
        or not inside.range.low <= key <= inside.range.high
        or len(inside.keys) != len(inside.places)  # some are on another device
        or not all(part.values.is_contiguous() for part in counted)
    ):
        return {part.name: _places(part, counts.dtype, key) for part in counted}
    places = inside.places[inside.keys == key].astype(np.int64)
    ends = np.cumsum([part.values.numel() for part in counted], dtype=np.int64)
    bounds = np.searchsorted(places, ends)
    begins = [0, *ends.tolist()]
    parts = zip(counted, np.split(places, bounds), begins, strict=False)
    return {part.name: mine - begin for part, mine, begin in parts}


def _places(part: ShardScores, dtype: torch.dtype, key: int) -> Array:
    """The flat indices, in the part that lies here, of the scores with this key."""
    flat = part.values.reshape(-1)
    found: list[Array] = []
    for piece in pieces(flat):
        tied = key_of(flat[piece], dtype, absolute=part.absolute) == key
        found.append(tied.nonzero().reshape(-1).cpu().numpy() + piece.start)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _with_empty(parts: Sequence[ShardScores], others: Sequence[ShardScores]) -> list[Scores]:
    empty = (Scores(o.name, o.values.reshape(-1)[:0], o.absolute) for o in others)
    return [*parts, *empty]


def _total(group: Sequence[ShardScores]) -> int:
    return sum(torch.Size(part.shard.shape).numel() for part in group)
