"""The pruning of stored weights, block after block."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs._tensors.float_keys import score_of
from secateurs.checkpoint.file_blocks import BLOCK, INTEGERS, Buffers, Reader, Weight
from secateurs.checkpoint.file_histogram import SIZES, FileCounts
from secateurs.checkpoint.file_scores import Keys, wide_keys
from secateurs.masks.bernoulli import Coins
from secateurs.selection.histogram import Sizes
from secateurs.selection.threshold import Threshold, find_threshold
from secateurs.selection.tie_breaking import Ties


@dataclass(frozen=True)
class WeightGroup:
    """Weights that compete with each other.

    Attributes:
        weights: the tensors, in the order in which ties are broken.
        keys: what makes their keys.
        threshold: where the candidates end; None if there are none.
    """

    weights: tuple[Weight, ...]
    keys: Keys
    threshold: Threshold | None

    @property
    def score(self) -> float | None:
        """The largest score of a candidate."""
        return None if self.threshold is None else score_of(self.threshold.key, self.keys.dtype)


def decide(
    weights: Sequence[Weight], keys: Keys, ratio: float, buffers: Buffers, sizes: Sizes = SIZES
) -> WeightGroup:
    """Find where the ``round(ratio * units)`` candidates end.

    Raises:
        InvalidArgumentError: a score is NaN.
    """
    counts = FileCounts(weights, keys, buffers, sizes)
    k = round(ratio * counts.total)  # as secateurs.select
    return WeightGroup(tuple(weights), keys, find_threshold(counts, k, sizes.bins_log2))


class Pruner:
    """Sets candidates to zero, weight by weight, in the order in which ties are broken.

    Args:
        groups: the weights, and where their candidates end.
        coins: say which candidates are pruned, by their number among all units; None prunes all,
            or none if ``idle``.
        idle: whether nothing is pruned, as with ``p_bern=0``.

    Attributes:
        pruned: for each weight whose `blocks` were read, how many of its elements were pruned.
    """

    def __init__(self, groups: Sequence[WeightGroup], coins: Coins | None, *, idle: bool = False):
        self.pruned: dict[str, int] = {}
        stay = np.empty(BLOCK, bool)  # one for all groups, of which there may be thousands
        self._choosers: Mapping[str, _Chooser] = {
            weight.entry.name: chooser
            for group in groups
            for chooser in [_Chooser(group, coins, stay, idle=idle)]
            for weight in group.weights
        }
        self._begins: dict[str, int] = {}
        begin = 0
        for weight in (weight for group in groups for weight in group.weights):
            self._begins[weight.entry.name] = begin
            begin += weight.units

    def remember(self, weight: Weight) -> Callable[[], None]:
        """Return a function to call before a weight's `blocks` are read a second time."""
        chooser = self._choosers[weight.entry.name]
        left = chooser.ties.left

        def go_back() -> None:
            chooser.ties.left = left

        return go_back

    def blocks(self, weight: Weight, reader: Reader) -> Iterator[tuple[int, Array]]:
        """Yield the weight's values, pruned, as integers of its element size.

        Yields:
            The flat index of the first element, and the values, which are valid until the next.
        """
        chooser, entry = self._choosers[weight.entry.name], weight.entry
        self.pruned[entry.name] = 0
        begin = self._begins[entry.name]
        integer = INTEGERS[entry.itemsize]
        if weight.is_wide:
            yield from self._grids(weight, reader, chooser.of_wide(weight, reader, begin))
            return
        chooser.keys.begin(weight)
        for start in range(0, entry.count, weight.step):
            raw = reader.elements(entry, start, min(start + weight.step, entry.count))
            values = raw.view(integer)
            keys = chooser.keys.of(weight, raw, len(values) // weight.size, start)
            stay = chooser.keep(keys, begin + start // weight.size)
            gone = len(stay) - int(np.count_nonzero(stay))
            if gone:
                units = values.reshape(len(stay), -1)
                np.multiply(units, stay[:, None], out=units)
                self.pruned[entry.name] += gone * units.shape[1]
            yield start, values

    def _grids(self, weight: Weight, reader: Reader, stays: Array) -> Iterator[tuple[int, Array]]:
        entry = weight.entry
        for grid in weight.grids():
            values = reader.elements(entry, grid.start, grid.stop).view(INTEGERS[entry.itemsize])
            stay = stays[grid.units]
            gone = len(stay) - int(np.count_nonzero(stay))
            if gone:
                units = values.reshape(grid.rows, grid.columns)
                np.multiply(units, stay, out=units)
                self.pruned[entry.name] += gone * grid.rows
            yield grid.start, values


class _Chooser:
    """Compares keys with the threshold.

    Args:
        group: the weights, and their threshold.
        coins: as for `Pruner`.
        stay: a buffer of one block for the results, shared with others.
        idle: as for `Pruner`.

    Attributes:
        keys: what makes the keys.
        ties: takes the units at the threshold that are candidates.
    """

    def __init__(self, group: WeightGroup, coins: Coins | None, stay: Array, *, idle: bool):
        self.keys, self._coins = group.keys, coins
        self._threshold = None if idle else group.threshold
        self.ties = Ties(0 if group.threshold is None else group.threshold.ties)
        self._stay = stay

    def keep(self, keys: Array, begin: int) -> Array:
        """Which units are not pruned, from number ``begin``; valid until the next call."""
        stay = self._stay[: len(keys)]
        if self._threshold is None:
            stay[:] = True
            return stay
        below = numpy_integer(self.keys.dtype).type(self._threshold.below)
        np.greater_equal(keys, below, out=stay)
        if self.ties.left:
            stay ^= self.ties.take(keys == below)
        if self._coins is not None:
            np.logical_or(stay, self._coins.tails(begin, begin + len(keys)), out=stay)
        return stay

    def of_wide(self, weight: Weight, reader: Reader, begin: int) -> Array:
        """Which units of a weight are not pruned, if its units are wide."""
        keys = wide_keys(weight, self.keys, reader)
        step = weight.block
        starts = range(0, len(keys), step)
        return np.concatenate([self.keep(keys[i : i + step], begin + i).copy() for i in starts])
