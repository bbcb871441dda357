"""Masks of stored weights, computed and applied block by block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs._tensors.float_keys import score_of
from secateurs.checkpoint.file_blocks import BLOCK, INTEGERS, Buffers, Reader, Weight
from secateurs.checkpoint.file_histogram import SIZES, FileCounts
from secateurs.checkpoint.file_scores import Keys
from secateurs.masks.bernoulli import Coins
from secateurs.selection.histogram import Sizes
from secateurs.selection.neighbours import smallest_of_each
from secateurs.selection.scopes import NOfM
from secateurs.selection.threshold import Threshold, find_threshold
from secateurs.selection.tie_breaking import Ties


@dataclass(frozen=True)
class WeightGroup:
    """Weights that compete with each other.

    Attributes:
        weights: the tensors, in the order in which ties are broken.
        keys: the source of their keys.
        threshold: separates the candidates from the other units; None if there are no candidates.
        neighbours: the scope N:M, in which there is no threshold; None in others, and if there are
            no candidates.
    """

    weights: tuple[Weight, ...]
    keys: Keys
    threshold: Threshold | None
    neighbours: NOfM | None = None

    @property
    def score(self) -> float | None:
        """The largest score of a candidate."""
        return None if self.threshold is None else score_of(self.threshold.key, self.keys.dtype)


def decide(
    weights: Sequence[Weight],
    keys: Keys,
    ratio: float,
    buffers: Buffers,
    sizes: Sizes = SIZES,
    scope: NOfM | None = None,
) -> WeightGroup:
    """Find the threshold of the ``round(ratio * units)`` candidates; none in a scope N:M.

    Raises:
        InvalidArgumentError: a score is NaN.
    """
    counts = FileCounts(weights, keys, buffers, sizes)
    if scope is not None:
        find_threshold(counts, 0)  # refuses NaN
        return WeightGroup(tuple(weights), keys, None, scope if ratio else None)
    k = round(ratio * counts.total)  # as secateurs.select
    return WeightGroup(tuple(weights), keys, find_threshold(counts, k, sizes.bins_log2))


class BlockPruner:
    """Sets candidates to zero, weight by weight, in the order in which ties are broken.

    Args:
        groups: the weights, with their thresholds.
        coins: the Bernoulli draws of the candidates, by their index among all units; None prunes
            all candidates, or none if ``idle``.
        idle: whether nothing is pruned, as with ``p_bern=0``.

    Attributes:
        pruned: the number of pruned elements of each weight whose `blocks` were read, by name.
    """

    def __init__(self, groups: Sequence[WeightGroup], coins: Coins | None, *, idle: bool = False):
        self.pruned: dict[str, int] = {}
        kept = np.empty(BLOCK, bool)  # one for all groups, of which there may be thousands
        self._masks: dict[str, tuple[_BlockMask, int]] = {}  # with the index of the first unit
        first = 0
        for group in groups:
            mask = _BlockMask(group, coins, kept, idle=idle)
            for weight in group.weights:
                self._masks[weight.entry.name] = mask, first
                first += weight.units

    def remember(self, weight: Weight) -> Callable[[], None]:
        """Return a function to call before a weight's `blocks` are read a second time."""
        ties = self._masks[weight.entry.name][0].ties
        left = ties.left

        def go_back() -> None:
            ties.left = left

        return go_back

    def blocks(self, weight: Weight, reader: Reader) -> Iterator[Array]:
        """Yield the weight's values, pruned, as integers of its element size, in order.

        Each array is valid until the next.
        """
        entry = weight.entry
        mask, first = self._masks[entry.name]
        self.pruned[entry.name] = 0
        integer = INTEGERS[entry.itemsize]
        if weight.is_wide:
            yield from self._grids(weight, reader, mask.of_wide(weight, reader, first))
            return
        mask.keys.begin(weight)
        for start in range(0, entry.count, weight.step):
            raw = reader.elements(entry, start, min(start + weight.step, entry.count))
            values = raw.view(integer)
            keys = mask.keys.of(weight, raw, len(values) // weight.size, start)
            kept = mask.of(keys, first + start // weight.size)
            self._prune(entry.name, values.reshape(len(kept), -1), kept[:, None])
            yield values

    def _grids(self, weight: Weight, reader: Reader, mask: Array) -> Iterator[Array]:
        entry = weight.entry
        for grid in weight.grids():
            values = reader.elements(entry, grid.start, grid.stop).view(INTEGERS[entry.itemsize])
            self._prune(entry.name, values.reshape(grid.rows, grid.columns), mask[grid.units])
            yield values

    def _prune(self, name: str, values: Array, kept: Array) -> None:
        """Set the elements of units that are not kept to zero, in place, and count them."""
        pruned = kept.size - int(np.count_nonzero(kept))
        if pruned:
            np.multiply(values, kept, out=values)
            self.pruned[name] += pruned * (values.size // kept.size)


class _BlockMask:
    """The mask of one block at a time: compares keys with the threshold, or with their neighbours.

    Attributes:
        keys: the source of the keys.
        ties: takes the units at the threshold that are candidates.
    """

    def __init__(self, group: WeightGroup, coins: Coins | None, kept: Array, *, idle: bool):
        self.keys, self._coins, self._kept = group.keys, coins, kept
        self._threshold = None if idle else group.threshold
        self._scope = None if idle else group.neighbours
        self._spacing = group.weights[0].spacing
        self.ties = Ties(0 if group.threshold is None else group.threshold.ties)

    def of(self, keys: Array, first: int) -> Array:
        """The mask of units from index ``first``, True where kept; valid until the next call."""
        kept = self._kept[: len(keys)]
        if self._scope is not None:
            shape = -1, self._scope.of, self._spacing
            groups = torch.from_numpy(keys).view(shape).transpose(1, 2)
            pruned = smallest_of_each(groups.reshape(-1, self._scope.of), self._scope.pruned)
            pruned = pruned.view(groups.shape).transpose(1, 2).numpy()
            np.logical_not(pruned, out=kept.reshape(shape))
        elif self._threshold is not None:
            below = numpy_integer(self.keys.dtype).type(self._threshold.below)
            np.greater_equal(keys, below, out=kept)
            if self.ties.left:
                kept ^= self.ties.take(keys == below)
        else:
            kept[:] = True
        if self._coins is not None:  # candidates stay whose coins say so
            np.logical_or(kept, self._coins.tails(first, first + len(kept)), out=kept)
        return kept

    def of_wide(self, weight: Weight, reader: Reader, first: int) -> Array:
        """The mask of all units of a weight whose units are wide."""
        masks: list[Array] = []
        for keys in self.keys.blocks(weight, reader):
            masks.append(self.of(keys, first).copy())
            first += len(keys)
        return np.concatenate(masks)
