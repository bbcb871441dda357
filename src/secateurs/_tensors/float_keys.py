"""Integer keys of scores: the bits of a float, mapped so that keys are ordered as the scores are.

For every IEEE format, the bits of |x|, read as an integer, grow with |x| (infinity is last, NaN
beyond it). Counting keys in ranges therefore finds the k-th smallest score exactly, without sorting
and without a copy of the model; the counts can be summed over tensors, ranks or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Format:
    """One IEEE format: the integer of its size, all bits but the sign, and infinity's bits."""

    integer: torch.dtype
    magnitude: int
    infinity: int


_FORMATS = {
    torch.float64: _Format(torch.int64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    torch.float32: _Format(torch.int32, 0x7FFF_FFFF, 0x7F80_0000),
    torch.float16: _Format(torch.int16, 0x7FFF, 0x7C00),
    torch.bfloat16: _Format(torch.int16, 0x7FFF, 0x7F80),
}


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
    """A float format that holds all scores exactly: their own dtype if they share one."""
    dtypes = {s.values.dtype for s in scores}
    if len(dtypes) == 1 and dtypes <= _FORMATS.keys():
        return dtypes.pop()
    # float8 has no arithmetic, and partly no infinities; float32 holds its values exactly.
    return torch.float64 if torch.float64 in dtypes else torch.float32


def key_integer(dtype: torch.dtype) -> torch.dtype:
    """The integer dtype of the keys of a float format."""
    return _FORMATS[dtype].integer


def magnitude_bits(dtype: torch.dtype) -> int:
    """All bits but the sign: ``bits & magnitude_bits`` is the key of an absolute score."""
    return _FORMATS[dtype].magnitude


def key_range(dtype: torch.dtype, *, signed: bool) -> tuple[int, int]:
    """The smallest and the largest key of scores that are not NaN."""
    infinity = _FORMATS[dtype].infinity
    return (-infinity - 1 if signed else 0), infinity


def key_of(values: torch.Tensor, dtype: torch.dtype, *, absolute: bool) -> torch.Tensor:
    """Map scores to integers of the same order; equal scores, such as -0 and 0, to equal integers.

    Args:
        values: scores of any float dtype.
        dtype: the float format to compare in, one of float64, float32, float16, bfloat16.
        absolute: rank by |values| instead of by values.
    """
    form = _FORMATS[dtype]
    values = values.to(dtype)
    if absolute:
        return values.view(form.integer).bitwise_and(form.magnitude)
    bits = (values + 0.0).view(form.integer)  # adding zero turns -0 into 0
    # The bits of a negative float grow with its magnitude: flip all but the sign to reverse that.
    return torch.where(bits < 0, bits ^ form.magnitude, bits)


def score_of(key: int, dtype: torch.dtype) -> float:
    """Turn a key back into its score."""
    form = _FORMATS[dtype]
    bits = key if key >= 0 else key ^ form.magnitude
    return torch.tensor(bits, dtype=form.integer, device="cpu").view(dtype).item()
