import math

import pytest
import torch

from secateurs.draw import bernoulli

CPU = torch.device("cpu")
PROBABILITIES = [1 / 3, 0.5, 0.999, 0.05, 1 / 256, 255 / 256, 1 - 2**-10, 2**-20]


def draw(count: int, p: float, seed: int = 0) -> torch.Tensor:
    return bernoulli((count,), p, torch.Generator().manual_seed(seed), CPU)


def sigmas(found: float, p: float, count: int) -> float:
    return abs(found - p * count) / math.sqrt(count * p * (1 - p))


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_frequency_approaches_the_probability(p: float) -> None:
    count = 1 << 24 if p < 1e-3 else 1 << 21
    assert sigmas(int(draw(count, p).sum()), p, count) < 4


@pytest.mark.parametrize("p", [1 / 3, 0.7, 1 / 512])
def test_the_second_look_has_its_own_frequency(p: float) -> None:
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
    first, second = (bernoulli((count,), p, generator, CPU) for _ in range(2))
    assert sigmas(int((first & second).sum()), p * p, count) < 4


def test_each_place_has_the_frequency() -> None:
    """All eight bytes of a word, and each bit of them, count."""
    generator = torch.Generator().manual_seed(4)
    draws = 6_000
    total = sum(bernoulli((16,), 0.3, generator, CPU).int() for _ in range(draws))
    for found in total.tolist():
        assert sigmas(found, 0.3, draws) < 4.5


def test_the_seed_decides_and_the_state_advances() -> None:
    assert torch.equal(draw(1000, 0.5), draw(1000, 0.5))
    assert not torch.equal(draw(1000, 0.5), draw(1000, 0.5, seed=1))
    generator = torch.Generator().manual_seed(0)
    first = bernoulli((1000,), 0.5, generator, CPU)
    assert torch.equal(first, draw(1000, 0.5))
    assert not torch.equal(bernoulli((1000,), 0.5, generator, CPU), first)


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    draw(1000, 0.3)
    assert torch.equal(torch.get_rng_state(), state)


def test_certain_draws_need_no_randomness() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert bernoulli((3, 2), 1.0, generator, CPU).all()
    assert not bernoulli((3, 2), 0.0, generator, CPU).any()
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("p", [5e-324, 2**-70, math.nextafter(1, 0), math.nextafter(0.5, 0)])
def test_extreme_probabilities_are_taken(p: float) -> None:
    count = 1 << 20
    assert abs(draw(count, p).double().mean().item() - p) < 0.003


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (8,), (9,), (2, 0, 3), (3, 5, 2)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    found = bernoulli(shape, 0.5, torch.Generator().manual_seed(0), CPU)
    assert found.shape == torch.Size(shape)
    assert found.dtype == torch.bool
