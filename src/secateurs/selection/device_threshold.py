"""The k-th smallest key of tensors that are all on one accelerator, found on the device.

`secateurs.selection.threshold.find_threshold` counts, and would wait for the device at every step.
Sorting the few keys in a likely range waits three times.
"""

from collections.abc import Sequence

import torch

from secateurs._tensors.device_keys import device_blocks, joined_keys
from secateurs._tensors.float_keys import Scores, key_dtype, key_range
from secateurs._tensors.memory_order import flattened
from secateurs.selection.histogram import Sizes
from secateurs.selection.key_counts import sampled_ranks

# The most keys in the range that are sorted on the device.
_FEW = 1 << 23


def find_threshold_on_device(
    scores: Sequence[Scores], k: int, few: int = _FEW
) -> tuple[int, int, int] | None:
    """Find the k-th smallest key: guess a range from a sample, and sort the keys in it.

    It waits for the device three times, whatever the number of tensors.

    Args:
        scores: at least one, all on one device, and all absolute or none.
        k: from 1 to the number of scores.
        few: the most keys that may be in the range.

    Returns:
        The key, how many of the scores that have it belong to the k smallest, and how many have it.
        None if the k-th smallest is not in the likely range, too many keys are in it, or a score is
        NaN.
    """
    dtype, total = key_dtype(scores), sum(s.values.numel() for s in scores)
    low, high = _likely_range(scores, dtype, k, total)
    least, greatest = key_range(dtype, signed=not scores[0].absolute)
    inside: list[torch.Tensor] = []
    below: list[torch.Tensor] = []
    nan: list[torch.Tensor] = []
    kept = 0
    for keys in device_blocks(scores, dtype):
        inside.append(keys[(keys >= low) & (keys <= high)])
        below.append((keys < low).sum())
        nan.append(((keys < least) | (keys > greatest)).sum())  # beyond the infinities
        kept += len(inside[-1])
        if kept > few:
            return None
    before, nans = torch.stack([sum(below[1:], below[0]), sum(nan[1:], nan[0])]).tolist()
    if nans or not before < k <= before + kept:
        return None
    ranked = torch.cat(inside).sort().values
    key = ranked[k - before - 1]
    found, smaller, tied = torch.stack(
        [key.long(), (ranked < key).sum(), (ranked == key).sum()]
    ).tolist()
    return found, k - before - smaller, tied


def _likely_range(
    scores: Sequence[Scores], dtype: torch.dtype, k: int, total: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two keys, on the device, that likely have the k-th smallest between them."""
    step, offset = max(total // Sizes.sample, 1), 0
    taken: list[torch.Tensor] = []
    for one in scores:
        flat, first = flattened(one.values), -offset % step
        if first < flat.numel():
            taken.append(flat[first::step])
        offset += flat.numel()
    sample = joined_keys(taken, dtype, absolute=scores[0].absolute).sort().values
    first, final = sampled_ranks(k, total, len(sample))
    return sample[first], sample[final]
