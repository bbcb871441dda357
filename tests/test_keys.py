import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import DTYPES, FLOAT8, exact
from secateurs import keys
from secateurs.errors import InvalidArgumentError
from secateurs.keys import KeyCounts, Scores, key_dtype, key_of, score_of

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
def test_every_key_lies_in_the_range_that_counts_start_from(dtype: torch.dtype) -> None:
    ends = torch.tensor([-math.inf, -0.0, 0.0, math.inf], dtype=dtype)
    signed, unsigned = (KeyCounts([Scores("", ends, a)]) for a in (False, True))
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


@given(
    values=st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40),
    ends=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    shift=st.integers(14, 31),
)
@exact(60)
def test_counts_below_and_in_bins(values: list[float], ends: tuple[int, int], shift: int) -> None:
    counts = KeyCounts([Scores("", torch.tensor(values), True)])
    low, high = sorted(ends)
    found = key_of(torch.tensor(values), torch.float32, absolute=True).tolist()
    below, bins = counts.count(low, high, shift)
    assert below == sum(key < low for key in found)
    assert bins.tolist() == [
        sum(first <= key < first + 2**shift and key <= high for key in found)
        for first in range(low, high + 1, 2**shift)
    ]


def test_a_range_over_all_of_float64_does_not_overflow() -> None:
    values = torch.tensor([-1e308, -1.0, 0.0, 1e308, math.inf], dtype=torch.float64)
    counts = KeyCounts([Scores("", values, False)])
    shift = 50
    below, bins = counts.count(counts.low, counts.high, shift)
    assert below == 0
    expected = [
        (key - counts.low) >> shift for key in key_of(values, values.dtype, absolute=False).tolist()
    ]
    assert bins.nonzero().reshape(-1).tolist() == expected


@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
def test_nan_is_refused_wherever_it_hides(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(keys._CHUNK, "cpu", chunk)
    for dtype in DTYPES:
        for place in range(8):
            values = torch.ones(8)
            values[place] = math.nan
            values = values.to(dtype)
            assert bool(values.float().isnan()[place])
            scores = [Scores("fine", torch.ones(2), True), Scores("layer.w", values, True)]
            words = r"score of layer\.w is NaN in places.* write exclude='layer\.w'"
            with pytest.raises(InvalidArgumentError, match=words):
                KeyCounts(scores).refuse_nan()
    KeyCounts([Scores("inf", torch.tensor([math.inf, -math.inf]), False)]).refuse_nan()


def test_a_guess_is_near_the_rank_and_cheap() -> None:
    values = torch.randn(300_000)
    counts = KeyCounts([Scores("a", values[:100_000], True), Scores("b", values[100_000:], True)])
    ranked = key_of(values, torch.float32, absolute=True).sort().values
    for k in (1000, 150_000, 299_000):
        low, high = counts.guess(k)
        assert low <= ranked[k - 1] <= high
        inside = int(((ranked >= low) & (ranked <= high)).sum())
        assert inside < 0.03 * len(values)


@pytest.mark.parametrize(
    "values",
    [
        torch.rand(2, 3, 4),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(4, 3).t(),
        torch.rand(6, 8)[::2, 1::3],
        torch.rand(3, 1).expand(3, 4),
        torch.rand(1, 4).expand(3, 4),
        torch.rand(()),
        torch.rand(0, 3),
    ],
)
def test_memory_order_is_a_permutation_and_a_view_where_it_can_be(values: Tensor) -> None:
    order = keys.storage_order(values)
    assert sorted(order) == list(range(values.dim()))
    strides = values.permute(order).stride()
    assert sorted(strides, reverse=True) == list(strides)
    back = values.permute(order).permute(keys.inverse(order))
    assert back.stride() == values.stride()
    if values.numel() == values.untyped_storage().nbytes() // 4:
        assert values.permute(order).reshape(-1).data_ptr() == values.data_ptr()


def test_pieces_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keys._CHUNK, "cpu", 4)
    for length in (0, 1, 4, 5, 8):
        flat = torch.arange(length)
        found = [flat[piece] for piece in keys.pieces(flat)]
        assert [x for f in found for x in f.tolist()] == list(range(length))
        assert all(1 <= len(f) <= 4 for f in found)
