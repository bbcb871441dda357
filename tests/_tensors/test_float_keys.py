import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import FLOAT8, exact
from secateurs._tensors.float_keys import Scores, key_dtype, key_of, score_of
from secateurs.selection.tensor_counts import TensorCounts

WIDE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = {8: torch.uint8, 16: torch.int16}


def every_value(dtype: torch.dtype) -> Tensor:
    """All values of a small format but NaN: both zeros, denormals, infinities where it has them."""
    width = torch.empty(0, dtype=dtype).element_size() * 8
    patterns = torch.arange(2**width, dtype=torch.int32).to(INTEGERS[width])
    values = patterns.view(dtype)
    return values[~values.float().isnan()]


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *FLOAT8])
def test_keys_of_every_value_are_in_the_order_of_the_scores(
    dtype: torch.dtype, absolute: bool
) -> None:
    values = every_value(dtype)
    found = key_of(values, key_dtype([Scores("", values, absolute)]), absolute=absolute).long()
    scores = values.double().abs() if absolute else values.double()
    order = scores.argsort()
    grows, key_grows = scores[order].diff() > 0, found[order].diff() > 0
    assert torch.equal(grows, key_grows)
    assert bool((found[order].diff() >= 0).all())


def float_from(bits: int, dtype: torch.dtype) -> float:
    if dtype == torch.float64:
        return struct.unpack("<d", struct.pack("<Q", bits))[0]
    return struct.unpack("<f", struct.pack("<I", bits >> 32))[0]


SPECIAL = [0.0, -0.0, 5e-324, -5e-324, 1e-45, 1.0, -1.0, math.inf, -math.inf, 3.4e38, -1.7e308]


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(patterns=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
@exact(60)
def test_keys_of_wide_values_are_in_the_order_of_the_scores(
    dtype: torch.dtype, absolute: bool, patterns: list[int]
) -> None:
    floats = [f for bits in patterns if not math.isnan(f := float_from(bits, dtype))]
    values = torch.tensor(floats + SPECIAL, dtype=torch.float64).to(dtype)
    found = key_of(values, dtype, absolute=absolute).tolist()
    scores = values.abs().tolist() if absolute else values.tolist()
    for score, key in zip(scores, found, strict=True):
        for other, other_key in zip(scores, found, strict=True):
            assert (score < other) == (key < other_key)
            assert (score == other) == (key == other_key)
        assert score_of(key, dtype) == score


@pytest.mark.parametrize("dtype", WIDE)
def test_every_key_is_in_the_range_that_is_counted_first(dtype: torch.dtype) -> None:
    ends = torch.tensor([-math.inf, -0.0, 0.0, math.inf], dtype=dtype)
    signed, unsigned = (TensorCounts([Scores("", ends, a)]) for a in (False, True))
    low, first_zero, second_zero, high = key_of(ends, dtype, absolute=False).tolist()
    assert (signed.low, signed.high) == (low, high)
    assert first_zero == second_zero == 0
    assert (unsigned.low, unsigned.high) == (0, high)


@pytest.mark.parametrize("dtype", WIDE)
def test_keys_do_not_change_the_scores(dtype: torch.dtype) -> None:
    values = torch.tensor([-0.0, -1.0, 2.0], dtype=dtype)
    before = values.clone()
    for absolute in (True, False):
        key_of(values, dtype, absolute=absolute)
    assert torch.equal(values.view(torch.uint8), before.view(torch.uint8))


def test_scores_are_compared_in_a_format_that_holds_them_all() -> None:
    def of(*dtypes: torch.dtype) -> torch.dtype:
        return key_dtype([Scores("", torch.zeros(1).to(d), True) for d in dtypes])

    assert all(of(d) == d for d in WIDE)
    assert all(of(d) == torch.float32 for d in FLOAT8)
    assert of(torch.float16, torch.bfloat16) == torch.float32
    assert of(torch.float8_e5m2, torch.float16) == torch.float32
    assert of(torch.float16, torch.float64) == torch.float64
