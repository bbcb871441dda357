"""The exact k smallest scores over all ranks: each rank marks its own."""

from collections.abc import Sequence

import numpy as np
import torch

from secateurs._tensors.blocks import Array
from secateurs._tensors.float_keys import Scores, key_of
from secateurs._tensors.memory_order import pieces
from secateurs.distributed.process_group import ProcessGroup
from secateurs.selection.histogram import Sizes
from secateurs.selection.sharded.sharded_histogram import SIZES, IndexCounts, RankCounts
from secateurs.selection.tensor_counts import TensorCounts
from secateurs.selection.threshold import Threshold, find_threshold
from secateurs.selection.tie_breaking import Marks, mark
from secateurs.selection.unit_scores import ShardScores


def choose_parts(
    groups: Sequence[Sequence[Scores]], p_prune: float, ranks: ProcessGroup, sizes: Sizes = SIZES
) -> dict[str, torch.Tensor]:
    """Choose the candidates of every group: see `secateurs.select`.

    Args:
        groups: from `secateurs.selection.unit_scores.score_all`.
        p_prune: the ratio of units.
        ranks: those that hold the model.
        sizes: how much is looked at and kept at a time, the same on all ranks.

    Returns:
        For each name a bool tensor, one for each unit on this rank.
    """
    chosen: dict[str, torch.Tensor] = {}
    for group in groups:
        parts = [part for part in group if isinstance(part, ShardScores)]
        masks = _choose(parts, round(p_prune * _total(parts)), ranks, sizes)
        chosen |= {part.name: mask for part, mask in zip(parts, masks, strict=True)}
    return chosen


def _choose(
    group: Sequence[ShardScores], k: int, ranks: ProcessGroup, sizes: Sizes
) -> list[torch.Tensor]:
    """Mark the k smallest of all scores of all ranks together.

    Ties go to the earlier tensor, then to the smaller flat index in the whole tensor, however the
    ranks divide it.

    Args:
        group: the scores of this rank, in the order in which ties are broken.
        k: how many, from 0 to the number of units.
        ranks: all of which must call.
        sizes: how much is looked at and kept at a time.

    Returns:
        For each tensor a bool tensor, one for each unit of this rank.

    Raises:
        InvalidArgumentError: on all ranks, if a score is NaN; the parameter is named.
    """
    counted = [part for part in group if part.shard.counted]
    copies = [part for part in group if not part.shard.counted]
    marks, others = (Marks.empty([part.values for part in parts]) for parts in (counted, copies))
    masks = dict(zip((part.name for part in counted), marks.masks, strict=True))
    masks |= zip((part.name for part in copies), others.masks, strict=True)
    # Every tensor is in both, with or without elements, for all must agree on the keys' format.
    here = TensorCounts(_with_empty(counted, copies), marks.here, sizes)
    counts = RankCounts(here, _total(group), ranks)
    threshold = find_threshold(counts, k, sizes.bins_log2)
    if threshold is None:
        return [masks[part.name].fill_(False) for part in group]
    copied = TensorCounts(_with_empty(copies, counted), others.here, sizes)
    mark(counted, marks, here, threshold.below, ties=0)
    mark(copies, others, copied, threshold.below, ties=0)
    made = [masks[part.name] for part in group]
    if threshold.ties:
        _mark_ties(group, made, here, threshold, ranks)
    return made


def _mark_ties(
    group: Sequence[ShardScores],
    masks: Sequence[torch.Tensor],
    here: TensorCounts,
    threshold: Threshold,
    ranks: ProcessGroup,
) -> None:
    """Mark the earliest scores that equal the threshold, on whichever ranks they are."""
    tied = [_indices(part, here.dtype, threshold.key) for part in group]
    own = [len(i) if part.shard.counted else 0 for i, part in zip(tied, group, strict=True)]
    left = threshold.ties
    rows = zip(group, masks, tied, ranks.sum(np.array(own)).tolist(), strict=True)
    for part, mask, indices, total in rows:
        if left == 0:
            break
        if total > left:
            whole = part.shard.indices_of(indices)
            size = torch.Size(part.shard.shape).numel()
            counts = IndexCounts(whole if part.shard.counted else whole[:0], total, size, ranks)
            last = find_threshold(counts, left, here.sizes.bins_log2)
            indices = indices[whole <= last.key] if last is not None else indices[:0]
        if len(indices):
            index = torch.from_numpy(indices).to(mask.device)
            mask[torch.unravel_index(index, mask.shape)] = True
        left -= min(total, left)


def _indices(part: ShardScores, dtype: torch.dtype, key: int) -> Array:
    """The flat indices, in the part that this rank has, of the scores with this key."""
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
