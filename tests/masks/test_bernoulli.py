import math

import numpy as np
import pytest
import torch
from torch import nn

import reference
from helpers import flags
from secateurs import select
from secateurs._tensors import memory_order
from secateurs.distributed.shard import Shard
from secateurs.masks.bernoulli import Coins, draw_into, heads_on_device

PROBABILITIES = [1 / 3, 0.5, 0.999, 0.05, 1 / 256, 255 / 256, 1 - 2**-10, 2**-20]


def heads(shape: tuple[int, ...], p: float, generator: torch.Generator) -> torch.Tensor:
    """What is pruned when everything is a candidate."""
    chosen = torch.ones(shape, dtype=torch.bool)
    keep = torch.empty_like(chosen)
    draw_into([keep], [chosen], p, generator)
    return ~keep


def draw(count: int, p: float, seed: int = 0) -> torch.Tensor:
    return heads((count,), p, torch.Generator().manual_seed(seed))


def sigmas(found: float, p: float, count: int) -> float:
    return abs(found - p * count) / math.sqrt(count * p * (1 - p))


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_frequency_approaches_the_probability(p: float) -> None:
    count = 1 << 24 if p < 1e-3 else 1 << 21
    assert sigmas(int(draw(count, p).sum()), p, count) < 4


@pytest.mark.parametrize("p", [1 / 3, 0.7, 1 / 512])
def test_further_bits_have_the_right_frequency(p: float) -> None:
    """A coarse p would be off by less than one part in 256: look closer than that."""
    count = 1 << 24
    found = int(draw(count, p, seed=1).sum())
    assert sigmas(found, p, count) < 4
    for coarse in (math.floor(p * 256) / 256, math.ceil(p * 256) / 256):
        if 0 < coarse < 1:
            assert sigmas(found, coarse, count) > 4


@pytest.mark.parametrize("p", [1 / 3, 0.5, 0.9])
def test_units_are_independent(p: float) -> None:
    """Pairs at any small distance agree as often as independent draws do."""
    count = 1 << 20
    found = draw(count, p, seed=2)
    for distance in (*range(1, 17), 64, 256, 4096):
        both = int((found[distance:] & found[:-distance]).sum())
        assert sigmas(both, p * p, count - distance) < 4.5


@pytest.mark.parametrize("p", [1 / 3, 0.5])
def test_draws_are_independent_of_the_draw_before(p: float) -> None:
    generator = torch.Generator().manual_seed(3)
    count = 1 << 20
    first, second = (heads((count,), p, generator) for _ in range(2))
    assert sigmas(int((first & second).sum()), p * p, count) < 4


def test_each_unit_has_the_frequency() -> None:
    """All eight bytes of a word, and each bit of them, count."""
    generator = torch.Generator().manual_seed(4)
    draws = 6_000
    total = sum(heads((16,), 0.3, generator).int() for _ in range(draws))
    for found in total.tolist():
        assert sigmas(found, 0.3, draws) < 4.5


def test_the_seed_decides_and_the_state_advances() -> None:
    assert torch.equal(draw(1000, 0.5), draw(1000, 0.5))
    assert not torch.equal(draw(1000, 0.5), draw(1000, 0.5, seed=1))
    generator = torch.Generator().manual_seed(0)
    first = heads((1000,), 0.5, generator)
    assert torch.equal(first, draw(1000, 0.5))
    assert not torch.equal(heads((1000,), 0.5, generator), first)


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    draw(1000, 0.3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("p", [5e-324, 2**-70, math.nextafter(1, 0), math.nextafter(0.5, 0)])
def test_extreme_probabilities_are_taken(p: float) -> None:
    count = 1 << 20
    assert abs(draw(count, p).double().mean().item() - p) < 0.003


@pytest.mark.parametrize("p", [1 / 3, 0.5])
def test_runs_are_as_long_as_chance_makes_them(p: float) -> None:
    """The runs test of Wald and Wolfowitz (1940)."""
    found = draw(1 << 20, p, seed=5)
    ones = int(found.sum())
    zeros = len(found) - ones
    runs = 1 + int((found[1:] != found[:-1]).sum())
    mean = 1 + 2 * ones * zeros / len(found)
    variance = (mean - 1) * (mean - 2) / (len(found) - 1)
    assert abs(runs - mean) / math.sqrt(variance) < 4


def test_pairs_of_units_are_uncorrelated_over_redraws() -> None:
    """Among 64 units over 20,000 redraws no pair goes together more than chance allows."""
    draws, p = 20_000, 0.3
    generator = torch.Generator().manual_seed(6)
    table = torch.stack([heads((64,), p, generator) for _ in range(draws)]).double()
    correlation = torch.corrcoef(table.T)
    beyond = correlation.fill_diagonal_(0).abs() * math.sqrt(draws)
    assert beyond.max() < 4.5  # of 2,016 pairs
    lagged = ((table[1:] - p) * (table[:-1] - p)).mean(0) / (p * (1 - p)) * math.sqrt(draws - 1)
    assert lagged.abs().max() < 4


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (8,), (9,), (2, 0, 3), (3, 5, 2)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    found = heads(shape, 0.5, torch.Generator().manual_seed(0))
    assert found.shape == torch.Size(shape)
    assert found.dtype == torch.bool


@pytest.mark.parametrize("p", [0.3, 0.5, 1 / 256, 2**-40, 1 - 2**-40])
def test_coins_are_those_of_the_definition(p: float) -> None:
    words = torch.empty(3, dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(7))
    expected = reference.coins(p, words.tolist(), 2000)
    coins = Coins(p, torch.Generator().manual_seed(7))
    assert (~coins.tails(0, 2000)).tolist() == expected
    for start, stop in ((0, 1), (5, 5), (31, 33), (32, 64), (1, 1999), (1777, 1778)):
        assert (~coins.tails(start, stop)).tolist() == expected[start:stop]


def shapes_and_layouts() -> list[torch.Tensor]:
    return [
        torch.rand(5),
        torch.rand(3, 4),
        torch.rand(4, 3).t(),
        torch.rand(2, 4, 3, 3).to(memory_format=torch.channels_last),
        torch.rand(0, 2),
        torch.rand(()),
        torch.rand(40),
    ]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("p", [0.3, 0.5])
def test_a_draw_depends_on_the_flat_index_alone(p: float, threads: int, beside: bool) -> None:
    """Not on threads, blocks, memory layouts, nor on whether the masks lie side by side."""
    chosen = [t < 0.6 for t in shapes_and_layouts()]
    if beside:
        made = memory_order.side_by_side(chosen, torch.bool)
        chosen = [a.copy_(b) for a, b in zip(made, chosen, strict=True)]
    keep = memory_order.side_by_side(chosen, torch.bool)
    source = torch.Generator().manual_seed(8)
    draw_into(keep, chosen, p, source, block=7, threads=threads)
    words = torch.empty(3, dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(8))
    coins = reference.coins(p, words.tolist(), sum(c.numel() for c in chosen))
    for kept, candidates in zip(keep, chosen, strict=True):
        mine, coins = coins[: kept.numel()], coins[kept.numel() :]
        pruned = [c and coin for c, coin in zip(flags(candidates), mine, strict=True)]
        assert flags(~kept) == pruned


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_draws_need_no_randomness(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    chosen = [t < 0.6 for t in shapes_and_layouts()]
    for source in (generator, None):
        keep = memory_order.side_by_side(chosen, torch.bool)
        draw_into(keep, chosen, p, source)
        for kept, candidates in zip(keep, chosen, strict=True):
            assert torch.equal(kept, ~candidates if p else torch.ones_like(candidates))
    assert torch.equal(generator.get_state(), state)


def test_another_device_compares_words_of_32_bits() -> None:
    """Called here on the CPU, since `draw_into` calls it for generators on other devices alone."""
    count = 1 << 20
    for p in (0.3, 0.5, 1e-3):
        found = heads_on_device(count, p, torch.Generator().manual_seed(9))
        assert sigmas(int(found.sum()), p, count) < 4
    assert not heads_on_device(100, 2**-40, torch.Generator().manual_seed(9)).any()
    assert heads_on_device(100, 1 - 2**-40, torch.Generator().manual_seed(9)).all()
    words = torch.empty(count, dtype=torch.int32)
    words.random_(-(2**31), None, generator=torch.Generator().manual_seed(9))
    assert words.min() < -(2**31) + 2**14 < 2**31 - 2**14 < words.max()


@pytest.mark.parametrize("lying", ["rows", "columns", "scattered", "turned"])
def test_a_shard_is_drawn_as_in_the_whole_tensor(lying: str) -> None:
    """By the units' numbers in the whole, also where a part lies in memory in another order."""
    first, second = torch.ones(5, dtype=torch.bool), torch.rand(6, 7) < 0.7
    whole = [torch.empty_like(first), torch.empty_like(second)]
    draw_into(whole, [first, second], 0.4, torch.Generator().manual_seed(3))
    rows = {"rows": np.arange(2, 5), "scattered": np.array([0, 5])}.get(lying, np.arange(6))
    columns = np.arange(7) if lying == "rows" else np.arange(1, 4)
    shard = Shard((6, 7), (rows, columns))
    part = shard.of(second).clone(memory_format=torch.contiguous_format)
    if lying == "turned":
        part = part.t().contiguous().t()
    keep = [torch.empty_like(first), torch.empty_like(part)]
    draw_into(keep, [first, part], 0.4, torch.Generator().manual_seed(3), [None, shard])
    assert torch.equal(keep[0], whole[0])
    assert torch.equal(keep[1], shard.of(whole[1]))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("last", [False, True])
def test_masks_that_were_drawn_in_inference_mode_are_redrawn_outside(p: float, last: bool) -> None:
    model = nn.Conv2d(2, 4, 3)
    candidates = select(model.to(memory_format=torch.channels_last) if last else model, 0.5)
    with torch.inference_mode():
        masks = candidates.draw()
    assert candidates.draw(p, seed=0, out=masks) == candidates.draw(p, seed=0)
