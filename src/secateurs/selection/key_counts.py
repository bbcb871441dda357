"""Counts of keys in ranges, from any source: all that the search for a threshold reads."""

from abc import ABC, abstractmethod

import torch

from secateurs._tensors.blocks import Array
from secateurs._tensors.float_keys import key_range
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.selection.histogram import Counted, KeyPass, Range, Sizes


class KeyCounts(ABC):
    """Counts of keys in ranges. A subclass samples the keys of its source, and reads all of them.

    Args:
        dtype: the float format of the keys.
        total: how many scores there are.
        signed: whether keys may be negative.
        sizes: how many keys are read and kept at a time.

    Attributes:
        low: the least possible key.
        high: the greatest possible key.
        last: the result of the last pass; None before the first.
        threads: how many threads add keys to a pass.
    """

    threads = 1

    def __init__(self, dtype: torch.dtype, total: int, *, signed: bool, sizes: Sizes):
        self.dtype, self.total, self.sizes = dtype, total, sizes
        self.low, self.high = key_range(dtype, signed=signed)
        self.last: Counted | None = None

    @abstractmethod
    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range of keys, both ends included, that likely holds the k-th smallest.

        It comes from a sample. A wrong guess costs another pass; the result is exact all the same.

        Args:
            k: from 1 to ``total``.
        """

    def count(self, low: int, high: int, shift: int) -> tuple[int, Array]:
        """Count the keys below ``low``, and those from ``low`` to ``high`` in bins.

        It makes a pass over the scores, unless the last pass has found these counts already.

        Args:
            low: the first key of the first bin.
            high: the last key that is counted.
            shift: each bin holds 2**shift consecutive keys.

        Returns:
            The number of keys below ``low``, and an int64 array of counts, one for each bin.

        Raises:
            InvalidArgumentError: a score is NaN; the parameter is named.
        """
        wanted = Range(low, high, shift)
        found = None if self.last is None else self.last.count(wanted)
        if found is None:
            counting = KeyPass(
                wanted, self.dtype, self.sizes, signed=self.low < 0, threads=self.threads
            )
            self.add_keys_to(counting)
            self.last = counting.finish()
            if counting.least < self.low or counting.greatest > self.high:
                # The keys of NaN are beyond those of the infinities.
                raise nan_error(self.name_of_nan())
            found = self.last.count(wanted)
        if found is None:
            raise RuntimeError("a pass has no counts of its own range")
        return found

    @abstractmethod
    def add_keys_to(self, counting: KeyPass) -> None:
        """Add all keys to a pass."""

    @abstractmethod
    def name_of_nan(self) -> str:
        """The name of a parameter with a score that is NaN; called when there is one."""


def nan_error(name: str) -> InvalidArgumentError:
    """Say that a parameter has a score that is NaN."""
    return InvalidArgumentError(
        f"the score of {name} is NaN in places, so it has no rank: check the weights and what else "
        "the score is made of, or write ",
        Argument("exclude", name),
    )


def likely_range(
    sample: Array, k: int, total: int, *, deviations: float = 3, deviation: float = 0
) -> tuple[int, int]:
    """Two keys that likely have the k-th smallest of all between them.

    Args:
        sample: some of the keys; partitioned in place.
        k: from 1 to ``total``.
        total: how many keys there are.
        deviations: as for `sampled_ranks`.
        deviation: as for `sampled_ranks`.
    """
    first, final = sampled_ranks(k, total, len(sample), deviations, deviation)
    sample.partition((first, final))
    return int(sample[first]), int(sample[final])


def sampled_ranks(
    k: int, total: int, samples: int, deviations: float = 3, deviation: float = 0
) -> tuple[int, int]:
    """Two ranks in a sorted sample that likely have the k-th smallest of all between them.

    Args:
        k: from 1 to ``total``.
        total: how many keys there are.
        samples: how many of them were sampled, at least one.
        deviations: the distance of both ranks from the expected one, in standard deviations.
        deviation: the standard deviation of the ratio of samples below the k-th smallest, if it is
            larger than that of independent samples.
    """
    last = samples - 1
    quantile = (k - 1) / max(total - 1, 1)
    binomial = (quantile * (1 - quantile) / samples) ** 0.5
    spread = deviations * max(binomial, deviation) * samples + 2
    return max(int(quantile * last - spread), 0), min(int(quantile * last + spread) + 1, last)
