"""Scores as integers: the bits of a float, rearranged so that integer order is score order.

The bits of |x|, read as an integer, grow with |x| for every IEEE format (infinity last, NaN beyond
it). Counting keys in ranges therefore finds the k-th smallest score exactly, without sorting,
without a copy of the model, and in a way that sums over tensors, ranks or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from secateurs.errors import InvalidArgumentError

_BITS = {
    torch.float64: (torch.int64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    torch.float32: (torch.int32, 0x7FFF_FFFF, 0x7F80_0000),
    torch.float16: (torch.int16, 0x7FFF, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7FFF, 0x7F80),
}
# Elements looked at together: small enough for a core's second-level cache on a CPU, large
# enough to fill a GPU.
_CHUNK = {"cpu": 1 << 16}
_CHUNK_ELSEWHERE = 1 << 24
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Scores:
    """The scores of the units of one parameter.

    Attributes:
        name: the parameter's name, for messages.
        values: one float a unit, any shape and memory layout.
        absolute: whether the score is the absolute value of ``values``.
    """

    name: str
    values: torch.Tensor
    absolute: bool


def key_dtype(scores: Sequence[Scores]) -> torch.dtype:
    """The float format in which all these scores are exact: their own if they agree on one."""
    dtypes = {s.values.dtype for s in scores}
    if len(dtypes) == 1 and dtypes <= _BITS.keys():
        return dtypes.pop()
    # float8 has no arithmetic and one format without infinities; float32 holds it exactly.
    return torch.float64 if torch.float64 in dtypes else torch.float32


def key_of(values: torch.Tensor, dtype: torch.dtype, *, absolute: bool) -> torch.Tensor:
    """Map scores to integers of the same order; equal scores, as -0 and 0, to equal integers.

    Args:
        values: scores of any float dtype.
        dtype: the float format to compare in, one of float64, float32, float16, bfloat16.
        absolute: rank by |values| instead of by values.
    """
    integer, positive, _ = _BITS[dtype]
    values = values.to(dtype)
    if absolute:
        return values.view(integer).bitwise_and(positive)
    bits = (values + 0.0).view(integer)  # adding zero turns -0 into 0
    # A negative float's bits grow with its size: flip all but the sign to turn the order round.
    return torch.where(bits < 0, bits ^ positive, bits)


def score_of(key: int, dtype: torch.dtype) -> float:
    """Turn a key back into the score it stands for."""
    integer, positive, _ = _BITS[dtype]
    bits = key if key >= 0 else key ^ positive
    return torch.tensor(bits, dtype=integer).view(dtype).item()


class KeyCounts:
    """Counts of keys in ranges, over any number of tensors: all that selection needs to know.

    Args:
        scores: the tensors, in the order in which ties are broken.

    Raises:
        InvalidArgumentError: when counted, a score is NaN.
    """

    def __init__(self, scores: Sequence[Scores]):
        self.scores = scores
        self.dtype = key_dtype(scores)
        self.total = sum(s.values.numel() for s in scores)
        self._infinity = _BITS[self.dtype][2]
        signed = any(not s.absolute for s in scores)
        # The keys run from minus infinity, or from zero, to infinity.
        self.low = -self._infinity - 1 if signed else 0
        self.high = self._infinity

    def refuse_nan(self) -> None:
        """Raise if a score is NaN, naming the parameter."""
        for scores in self.scores:
            flat = _flat(scores.values)
            for piece in pieces(flat):
                if bool(flat[piece].to(self.dtype).isnan().any()):
                    raise InvalidArgumentError(
                        f"the score of {scores.name} is NaN in places, so it has no rank: check "
                        f"the weights and gradients, or write exclude={scores.name!r}"
                    )

    def guess(self, k: int) -> tuple[int, int]:
        """A narrow range of keys, both ends included, that likely holds the k-th smallest.

        Taken from evenly spaced samples; a wrong guess costs another pass, never exactness.
        """
        sample = torch.cat([self._sampled(s) for s in self.scores]).sort().values
        rank = (k - 1) / max(self.total - 1, 1) * (sample.numel() - 1)
        # Four standard deviations of the rank of a sample quantile (a binomial).
        quantile = rank / max(sample.numel() - 1, 1)
        spread = 4 * (sample.numel() * quantile * (1 - quantile)) ** 0.5 + 2
        first, last = max(int(rank - spread), 0), min(int(rank + spread) + 1, sample.numel() - 1)
        return int(sample[first]), int(sample[last])

    def count(self, low: int, high: int, shift: int) -> tuple[int, torch.Tensor]:
        """Count the keys below ``low``, and those from ``low`` to ``high`` in bins.

        Args:
            low: the first key of the first bin.
            high: the last key that is counted.
            shift: each bin holds 2**shift consecutive keys.

        Returns:
            The number of keys below ``low``, and an int64 tensor of counts, one a bin.
        """
        below = 0
        bins = torch.zeros(((high - low) >> shift) + 1, dtype=torch.int64)
        for keys in self._chunks():
            below += int(torch.count_nonzero(keys < low))
            inside = keys[(keys >= low) & (keys <= high)].to(torch.int64)
            if inside.numel():
                places = (inside - low) >> shift
                if shift:  # the difference of two float64 keys may need its sign bit as a digit
                    places &= (1 << (64 - shift)) - 1
                found = torch.bincount(places, minlength=bins.numel())
                bins += found.cpu()
        return below, bins

    def _chunks(self) -> Iterator[torch.Tensor]:
        for scores in self.scores:
            flat = _flat(scores.values)
            for piece in pieces(flat):
                yield key_of(flat[piece], self.dtype, absolute=scores.absolute)

    def _sampled(self, scores: Scores) -> torch.Tensor:
        values = _flat(scores.values)
        step = max(self.total // _SAMPLE, 1)
        # Start at an odd place: a tensor shorter than a step still counts sometimes.
        start = min(step // 2, max(values.numel() - 1, 0))
        return key_of(values[start::step], self.dtype, absolute=scores.absolute).cpu()


def storage_order(values: torch.Tensor) -> tuple[int, ...]:
    """The order of dimensions in which ``values`` lies in memory.

    For a permuted tensor (``channels_last``, a transpose) ``values.permute(order).reshape(-1)`` is
    a view where ``values.reshape(-1)`` would be a copy.
    """
    return tuple(sorted(range(values.dim()), key=values.stride, reverse=True))


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes ``order``."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def pieces(flat: torch.Tensor) -> Iterator[slice]:
    """Slices that cover a flat tensor, each of a size that suits the device's caches."""
    size = _CHUNK.get(flat.device.type, _CHUNK_ELSEWHERE)
    return (slice(start, start + size) for start in range(0, flat.numel(), size))


def _flat(values: torch.Tensor) -> torch.Tensor:
    return values.permute(storage_order(values)).reshape(-1)
