"""The exact k smallest, in memory, over ranks and in files, against sorting in plain Python."""

import math

import pytest
import torch
from count_sources import SOURCES, marked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import reference
from helpers import DTYPES, exact, flags
from secateurs._tensors import float_keys
from secateurs._tensors.float_keys import Scores, key_dtype, key_of
from secateurs._tensors.memory_order import as_integers
from secateurs.errors import InvalidArgumentError
from secateurs.selection.histogram import KeyPass
from secateurs.selection.tensor_counts import TensorCounts
from secateurs.selection.threshold import (
    Threshold,
    candidate_masks,
    find_threshold,
    find_threshold_on_device,
    threshold_at,
)

LAYOUTS = ("plain", "transposed", "gaps", "expanded", "channels_last", "zero-dim")


def laid_out(values: list[float], dtype: torch.dtype, layout: str) -> Tensor:
    """The values in some memory layout; ``flat`` order is always that of the list or of parts."""
    flat = torch.tensor(values, dtype=torch.float64).to(torch.float32 if _narrow(dtype) else dtype)
    flat = flat.to(dtype)
    if layout == "zero-dim":
        return flat[0] if len(flat) else flat
    if layout == "gaps":
        return torch.stack([flat, flat], dim=-1)[:, 0]
    if layout == "expanded":
        return flat[:, None].expand(-1, 3)
    if len(flat) % 2 == 0 and layout == "transposed":
        return flat.view(2, -1).t()
    if len(flat) % 4 == 0 and layout == "channels_last":
        return flat.view(1, -1, 2, 2).permute(0, 3, 1, 2)
    return flat


def _narrow(dtype: torch.dtype) -> bool:
    return torch.empty(0, dtype=dtype).element_size() < 4


# Few values, so that most of them tie; zeros of both signs; denormals; the ends of formats.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, math.inf, -math.inf, 1e-45, 6e-8, -5e-324])
ANY = st.floats(allow_nan=False)
VALUES = st.one_of(
    st.lists(TIED, max_size=24),
    st.lists(ANY, max_size=24),
    st.lists(st.sampled_from([1.0, -1.0]), max_size=24),
)


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    dtypes = draw(st.one_of(st.sampled_from([[d] for d in DTYPES]), st.just(list(DTYPES))))
    rows = draw(st.lists(st.tuples(VALUES, st.sampled_from(LAYOUTS)), min_size=1, max_size=5))
    made = [laid_out(v, draw(st.sampled_from(dtypes)), layout) for v, layout in rows]
    # Conversion makes NaN of what a format without infinities cannot hold.
    return [
        t if t.numel() == 0 or not t.float().isnan().any() else t.float().nan_to_num() for t in made
    ]


def expected(values: list[Tensor], k: int, absolute: bool) -> list[list[bool]]:
    rows = [v.double().reshape(-1).tolist() for v in values]
    return reference.smallest([[abs(x) for x in row] if absolute else row for row in rows], k)


@pytest.mark.parametrize("source", SOURCES)
@given(values=tensors(), ratio=st.floats(0, 1), absolute=st.booleans())
@exact(120)
def test_exactly_the_k_smallest_the_earlier_of_ties(
    source: str, values: list[Tensor], ratio: float, absolute: bool
) -> None:
    """Every source of counts finds the same candidates, to the unit."""
    absolute |= not SOURCES[source].signed
    scores = [Scores(f"w{i}", value, absolute) for i, value in enumerate(values)]
    k = round(ratio * sum(v.numel() for v in values))
    found = SOURCES[source].pruned(scores, ratio)
    for one, value, candidates in zip(found, values, expected(values, k, absolute), strict=True):
        zeroed = marked(value, candidates)
        assert one.shape == value.shape
        assert torch.equal(as_integers(one), as_integers(zeroed))


@pytest.mark.parametrize("source", [name for name, one in SOURCES.items() if one.signed])
@given(
    values=st.lists(st.lists(TIED, max_size=9), min_size=1, max_size=6),
    absolute=st.lists(st.booleans(), min_size=6, max_size=6),
    ratio=st.floats(0, 1),
)
@exact(80)
def test_signed_and_absolute_scores_compete(
    source: str, values: list[list[float]], absolute: list[bool], ratio: float
) -> None:
    rows = list(zip(map(torch.tensor, values), absolute, strict=False))
    scores = [Scores(f"w{i}", value, ranked) for i, (value, ranked) in enumerate(rows)]
    k = round(ratio * sum(value.numel() for value, _ in rows))
    chosen = reference.smallest([v.abs().tolist() if a else v.tolist() for v, a in rows], k)
    found = SOURCES[source].pruned(scores, ratio)
    for one, (value, _), candidates in zip(found, rows, chosen, strict=True):
        assert torch.equal(as_integers(one), as_integers(marked(value, candidates)))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_nan_is_refused_whatever_the_ratio(source: str, ratio: float) -> None:
    values = [torch.ones(40), torch.linspace(0, 1, 200).sqrt()]
    values[1][137] = math.nan
    scores = [
        Scores(name, value, True) for name, value in zip(("good", "bad"), values, strict=True)
    ]
    with pytest.raises(InvalidArgumentError, match=r"the score of bad is NaN.*exclude='bad'"):
        SOURCES[source].pruned(scores, ratio)


class Misled(TensorCounts):
    """Counts whose guess is handed in, and which know how many passes they took."""

    passes = 0

    def __init__(self, scores: list[Scores], guess: tuple[int, int]):
        super().__init__(scores)
        self.wrong = guess

    def guess(self, k: int) -> tuple[int, int]:
        return self.wrong

    def add_keys_to(self, counting: KeyPass) -> None:
        self.passes += 1
        super().add_keys_to(counting)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("absolute", [True, False])
@given(
    values=st.lists(st.one_of(TIED, st.floats(-1e4, 1e4)), min_size=1, max_size=12),
    guess=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    place=st.floats(0, 1),
)
@exact(60)
def test_a_wrong_guess_costs_passes_never_exactness(
    dtype: torch.dtype,
    absolute: bool,
    values: list[float],
    guess: tuple[float, float],
    place: float,
) -> None:
    tensor = torch.tensor(values, dtype=torch.float64).to(dtype)
    scores = [Scores("", tensor, absolute)]
    right = TensorCounts(scores)
    low, high = sorted(right.low + round(g * (right.high - right.low)) for g in guess)
    counts = Misled(scores, (max(low, right.low), min(high, right.high)))
    k = 1 + round(place * (len(values) - 1))
    threshold = find_threshold(counts, k)
    ranked = sorted(key_of(tensor, dtype, absolute=absolute).tolist())
    assert threshold == threshold_of(ranked, k)
    assert counts.passes <= 6


def test_a_guess_that_misses_by_one() -> None:
    values = torch.tensor([1.0, 2.0, 2.0, 3.0])
    right = int(key_of(torch.tensor(2.0), torch.float32, absolute=True))
    for low in range(right - 2, right + 3):
        for high in range(low, right + 3):
            counts = Misled([Scores("", values, True)], (low, high))
            assert find_threshold(counts, 2) == threshold_at(right, ties=1, tied=2)
            assert (counts.passes == 1) == (low <= right <= high)


def test_a_sample_that_misleads_in_both_directions() -> None:
    """What a sample sees is not what most of the scores are; the sizes are the usual ones."""
    for sampled, rest in ((0.9, 0.1), (0.1, 0.9), (-1e300, 1e300), (1e300, -1e300)):
        values = torch.full((1 << 18,), rest, dtype=torch.float64)
        values[::4] = sampled  # exactly the sampled places
        k = 1 << 17
        (mask,), threshold = candidate_masks([Scores("", values, False)], k)
        assert threshold is not None
        assert float_keys.score_of(threshold.key, torch.float64) == rest
        order = values.argsort(stable=True)[:k]
        assert int(mask.sum()) == k
        assert bool(mask[order].all())


@pytest.mark.parametrize("k", [1, 49_999, 50_000, 50_001, 100_000])
@pytest.mark.parametrize("kind", ["equal", "two", "sorted", "reversed", "outliers"])
def test_adversarial_inputs(kind: str, k: int) -> None:
    count = 100_000
    values = {
        "equal": torch.full((count,), 0.5),
        "two": torch.arange(count).remainder(2).float(),
        "sorted": torch.linspace(0, 1, count),
        "reversed": torch.linspace(1, 0, count),
        "outliers": torch.cat([torch.full((count - 2,), 1e-30), torch.tensor([1e30, 0.0])]),
    }[kind]
    _check(values, 60_000, k)


def test_ten_thousand_small_tensors() -> None:
    _check(torch.randint(0, 50, (20_000,)).float(), 2, 10_000)


def _check(values: Tensor, size: int, k: int) -> None:
    masks, threshold = candidate_masks([Scores("", p, True) for p in values.split(size)], k)
    found = torch.cat(masks).nonzero().reshape(-1)
    assert torch.equal(found, values.argsort(stable=True)[:k].sort().values)
    assert threshold is not None
    assert float_keys.score_of(threshold.key, torch.float32) == values.sort().values[k - 1]


def test_ties_over_a_chunk_and_a_tensor_boundary() -> None:
    values = [torch.zeros(70_000), torch.zeros(()), torch.zeros(70_000).half()]
    masks, _ = candidate_masks([Scores("", v, True) for v in values], 70_003)
    assert masks[0].all()
    assert bool(masks[1])
    assert flags(masks[2][:3]) == [True, True, False]
    assert int(masks[2].sum()) == 2


def test_masks_have_the_memory_layout_of_the_scores() -> None:
    values = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    (mask,), _ = candidate_masks([Scores("", values, True)], 10)
    assert mask.stride() == values.stride()


def test_overlapping_scores_are_ranked_like_their_copies() -> None:
    """A sliding window shows one number in several places; each place is a unit of its own."""
    for width in (3, 17):
        values = torch.randn(20).unfold(0, width, 1)
        (mask,), _ = candidate_masks([Scores("", values, True)], 17)
        (copied,), _ = candidate_masks([Scores("", values.clone(), True)], 17)
        assert torch.equal(mask, copied)


def test_all_or_none() -> None:
    scores = [Scores("", torch.tensor([[1.0, math.inf], [0.0, -2.0]]), True)]
    assert not candidate_masks(scores, 0)[0][0].any()
    assert candidate_masks(scores, 4)[0][0].all()


def ranked(scores: list[Scores]) -> list[int]:
    dtype = key_dtype(scores)
    keys = [key_of(s.values.reshape(-1), dtype, absolute=s.absolute) for s in scores]
    return torch.cat(keys).sort().values.tolist()


def threshold_of(keys: list[int], k: int) -> Threshold:
    """The threshold of the k smallest of sorted keys."""
    key = keys[k - 1]
    return threshold_at(key, k - keys.index(key), keys.count(key))


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_device_finds_the_key_and_its_ties(dtype: torch.dtype, absolute: bool) -> None:
    sizes = (300, 1, 0, 700)
    scores = [Scores(str(n), torch.randn(n).to(dtype), absolute) for n in sizes]
    keys = ranked(scores)
    for k in (1, 2, 499, 500, 998, 1001):
        assert find_threshold_on_device(scores, k) == threshold_of(keys, k)


def test_a_device_finds_the_key_from_a_sample_of_many_scores() -> None:
    scores = [Scores("", torch.randn(40_000), True) for _ in range(5)]
    keys = ranked(scores)
    for k in (1, 1000, 100_000, 199_999, 200_000):
        found = find_threshold_on_device(scores, k)
        assert found is None or found == threshold_of(keys, k)
    assert find_threshold_on_device(scores, 100_000) is not None


def test_what_a_device_cannot_find_is_none() -> None:
    equal = [Scores("", torch.ones(100), True)]
    assert find_threshold_on_device(equal, 50, few=99) is None
    assert find_threshold_on_device(equal, 50, few=100) == threshold_of(ranked(equal), 50)
    strange = [Scores("", torch.tensor([1.0, torch.nan, 2.0]), True)]
    assert find_threshold_on_device(strange, 1) is None
