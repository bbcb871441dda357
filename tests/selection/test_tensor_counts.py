import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import DTYPES, exact
from secateurs._tensors.float_keys import Scores, key_of
from secateurs.errors import InvalidArgumentError
from secateurs.selection.histogram import KeyPass, Range, Sizes
from secateurs.selection.tensor_counts import TensorCounts


@given(
    values=st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40),
    ends=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    shift=st.integers(14, 31),
)
@exact(60)
def test_counts_below_and_in_bins(values: list[float], ends: tuple[int, int], shift: int) -> None:
    counts = TensorCounts([Scores("", torch.tensor(values), True)])
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
    counts = TensorCounts([Scores("", values, False)])
    shift = 50
    below, bins = counts.count(counts.low, counts.high, shift)
    assert below == 0
    expected = [
        (key - counts.low) >> shift for key in key_of(values, values.dtype, absolute=False).tolist()
    ]
    assert bins.nonzero()[0].tolist() == expected


@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_nan_is_refused_wherever_it_hides(block: int) -> None:
    sizes = Sizes(block=block)
    for dtype in DTYPES:
        for place in (0, 4, 7):
            values = torch.ones(8)
            values[place] = math.nan
            values = values.to(dtype)
            assert bool(values.float().isnan()[place])
            scores = [Scores("fine", torch.ones(2), True), Scores("layer.w", values, True)]
            words = r"score of layer\.w is NaN in places.* write exclude='layer\.w'"
            with pytest.raises(InvalidArgumentError, match=words):
                TensorCounts(scores, sizes=sizes).count(0, 0, 0)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        negative = torch.tensor([1.0, -math.inf, math.nan, 2.0], dtype=dtype)
        negative[2].copysign_(torch.tensor(-1.0))  # a NaN may have a sign
        for absolute in (True, False):
            with pytest.raises(InvalidArgumentError, match="signed"):
                TensorCounts([Scores("signed", negative, absolute)]).count(0, 0, 0)
    late = torch.ones(200_001)
    late[-1] = math.nan
    with pytest.raises(InvalidArgumentError, match="late"):
        TensorCounts([Scores("late", late, True)], sizes=Sizes(block=1000)).count(0, 0, 0)
    infinite = TensorCounts([Scores("inf", torch.tensor([math.inf, -math.inf]), False)])
    assert infinite.count(0, 0, 0)[0] == 1


def test_a_guess_is_near_the_rank_and_cheap() -> None:
    values = torch.randn(300_000)
    counts = TensorCounts(
        [Scores("a", values[:100_000], True), Scores("b", values[100_000:], True)]
    )
    ranked = key_of(values, torch.float32, absolute=True).sort().values
    for k in (1000, 150_000, 299_000):
        low, high = counts.guess(k)
        assert low <= ranked[k - 1] <= high
        inside = int(((ranked >= low) & (ranked <= high)).sum())
        assert inside < 0.03 * len(values)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_count_the_same(threads: int) -> None:
    parts = [torch.randn(n) for n in (5000, 1, 0, 700, 3000)]
    counts = TensorCounts([Scores("", p, True) for p in parts], sizes=Sizes(threads=threads))
    found = key_of(torch.cat(parts), torch.float32, absolute=True)
    low, high = counts.guess(4000)
    below, bins = counts.count(low, high, 4)
    assert below == int((found < low).sum())
    assert int(bins.sum()) == int(((found >= low) & (found <= high)).sum())


class Watched(TensorCounts):
    """Counts that know how many passes they took."""

    passes = 0

    def add_keys_to(self, counting: KeyPass) -> None:
        self.passes += 1
        super().add_keys_to(counting)


@pytest.mark.parametrize("kept", [1, 1 << 19])
def test_a_range_within_the_last_one_needs_no_pass(kept: int) -> None:
    """Its keys were kept, or counted one by one where they are too many to keep."""
    values = torch.randn(1000).half()
    counts = Watched([Scores("", values, True)], sizes=Sizes(kept=kept))
    ranked = key_of(values, torch.float16, absolute=True).sort().values.tolist()
    low, high = ranked[300], ranked[600]
    first = counts.count(low, high, 5)
    below, bins = counts.count(ranked[400], ranked[500], 0)
    assert below == sum(key < ranked[400] for key in ranked)
    assert bins.tolist() == [ranked.count(key) for key in range(ranked[400], ranked[500] + 1)]
    again = counts.count(low, high, 5)
    assert again[0] == first[0]
    assert again[1].tolist() == first[1].tolist()
    assert counts.passes == 1
    counts.count(low - 1, high, 5)
    assert counts.passes == 2


@pytest.mark.parametrize("kept", [1, 7, 1 << 19])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_counting_on_a_device_gives_the_same(dtype: torch.dtype, kept: int) -> None:
    keys = key_of(torch.randn(500).to(dtype), dtype, absolute=False)
    low, *_, high = keys.sort().values[100:401].tolist()
    wanted = Range(low, high, max((high - low).bit_length() - 10, 0))
    here, there = (KeyPass(wanted, dtype, Sizes(kept=kept), signed=True) for _ in range(2))
    there.add_on_device(keys[:200])
    there.add_on_device(keys[200:])
    here.add([keys.numpy()])
    found, expected = there.finish(), here.finish()
    assert (found.keys is None) == (expected.keys is None) == (kept < 300)
    (below, bins), (_, same) = found.count(wanted) or (0, None), expected.count(wanted) or (0, None)
    assert bins is not None and same is not None
    assert bins.tolist() == same.tolist()
    assert below == int((keys < wanted.low).sum())
    assert int(bins.sum()) == int(((keys >= wanted.low) & (keys <= wanted.high)).sum())
    assert (there.least, there.greatest) == (int(keys.min()), int(keys.max()))
