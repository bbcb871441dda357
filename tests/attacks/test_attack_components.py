"""TI, DI, RDI, SI and Admix, each by itself."""

import math

import pytest
import torch
from torch import Tensor

from secateurs.attacks._noise import generator_at
from secateurs.attacks.smoothing import gaussian_kernel, smoothed
from secateurs.attacks.transforms import DIVERSITY, Extent, mixed, others, placed, scaled


def drawn(kind: str, side: int, count: int = 400) -> list[tuple[Extent, Extent] | None]:
    generator = generator_at(3)
    return [DIVERSITY[kind].draw(side, side, generator) for _ in range(count)]


@pytest.mark.parametrize("side", [3, 5, 15])
def test_the_kernel_is_a_gaussian_out_to_three_sigma(side: int) -> None:
    kernel, sigma, middle = gaussian_kernel(side), (side - 1) / 6, side // 2
    assert kernel.sum().item() == pytest.approx(1)
    for row in range(side):
        for column in range(side):
            far = (row - middle) ** 2 + (column - middle) ** 2
            expected = math.exp(-far / (2 * sigma**2))
            assert kernel[row, column] / kernel[middle, middle] == pytest.approx(expected)


def test_smoothing_spreads_one_pixel_of_one_channel() -> None:
    gradient = torch.zeros(2, 3, 9, 9, dtype=torch.float64)
    gradient[1, 2, 4, 4] = 1
    found = smoothed(gradient, 5)
    assert torch.allclose(found[1, 2, 2:7, 2:7], gaussian_kernel(5))
    assert found.sum().item() == pytest.approx(1)
    assert found[0].abs().sum() == found[1, :2].abs().sum() == 0
    assert smoothed(gradient, 0) is gradient


def test_smoothing_takes_what_is_outside_as_zero() -> None:
    gradient = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    gradient[0, 0, 0, 0] = 1
    assert torch.allclose(smoothed(gradient, 3)[0, 0, :2, :2], gaussian_kernel(3)[1:, 1:])


@pytest.mark.parametrize(("kind", "large", "share"), [("di", 330, 0.7), ("rdi", 340, 1.0)])
def test_diversity_draws_as_the_papers_do(kind: str, large: int, share: float) -> None:
    found = drawn(kind, 299, 2000)
    extents = [extent for pair in found if pair is not None for extent in pair]
    assert sum(pair is not None for pair in found) / len(found) == pytest.approx(share, abs=0.03)
    assert {extent.large for extent in extents} == {large}
    assert {extent.small for extent in extents} == set(range(299, large))
    assert all(0 <= extent.start <= extent.large - extent.small for extent in extents)
    assert any(extent.start == 0 for extent in extents)
    assert any(extent.start == extent.large - extent.small for extent in extents)


@pytest.mark.parametrize("side", [1, 8, 32, 224])
def test_diversity_scales_with_the_side(side: int) -> None:
    for pair in drawn("di", side):
        for extent in pair or ():
            assert extent.large == max(side + 1, round(side * 330 / 299))
            assert side <= extent.small < extent.large


def test_oblong_images_keep_their_shape() -> None:
    down, across = DIVERSITY["rdi"].draw(100, 200, generator_at(0)) or ()
    assert (down.large, across.large) == (114, 227)
    assert across.small / 200 == pytest.approx(down.small / 100, abs=0.01)


def test_placing_resizes_pads_and_resizes_back() -> None:
    image = torch.ones(1, 1, 4, 6)
    # Twice as large in all, so each pixel at the end is the mean of two by two.
    found = placed(image, Extent(6, 8, 2), Extent(10, 12, 0))
    expected = torch.ones(4, 6)
    expected[0] = 0
    expected[:, 5] = 0
    assert torch.allclose(found[0, 0], expected)


@pytest.mark.parametrize("kind", DIVERSITY)
def test_all_images_are_placed_alike(kind: str) -> None:
    images = torch.rand(4, 3, 10, 10).to(memory_format=torch.channels_last)
    for seed in range(5):
        whole = DIVERSITY[kind](images, generator_at(seed))
        parts = [DIVERSITY[kind](part, generator_at(seed)) for part in images.split(3)]
        assert torch.equal(whole, torch.cat(parts))
        assert whole.shape == images.shape
        assert whole.is_contiguous(memory_format=torch.channels_last)


def test_scaled_copies_halve() -> None:
    images = torch.rand(2, 1, 3, 3)
    assert [float((scaled(images, i) / images).mean()) for i in range(4)] == [1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_every_image_gets_another_and_each_once(count: int) -> None:
    found = [others(count, generator_at(seed)) for seed in range(20)]
    for other in found:
        assert sorted(other.tolist()) == list(range(count))
        assert not (other == torch.arange(count)).any()
    assert count == 2 or len({tuple(other.tolist()) for other in found}) > 1
    assert others(1, generator_at(0)).tolist() == [0]


def test_mixing_adds_a_fifth_and_differentiates_the_image_alone() -> None:
    images = torch.rand(2, 1, 3, 3, requires_grad=True)
    found = mixed(images, images.flip(0))
    assert torch.allclose(found, images + 0.2 * images.flip(0))
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert torch.equal(gradient, torch.ones_like(images))


def test_indices_draw_independently() -> None:
    def numbers(seed: int, *place: int) -> Tensor:
        return torch.rand(8, generator=generator_at(seed, *place))

    places = [(), (0,), (0, 0), (1, 0), (0, 1), (1, 0, 0), (2**40, 3)]
    found = {
        tuple(numbers(seed, *place).tolist()) for place in places for seed in (-1, 0, 1, 2**70)
    }
    assert len(found) == 4 * len(places)
    assert torch.equal(numbers(5, 1, 2), numbers(5, 1, 2))
