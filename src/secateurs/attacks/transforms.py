"""Transforms of the members' inputs: resized and padded, scaled, or mixed images."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_ADMIX_SHARE = 0.2


class Extent(NamedTuple):
    """In one dimension: ``small`` pixels, placed in ``large`` ones from index ``start`` on."""

    small: int
    large: int
    start: int


@dataclass(frozen=True)
class InputDiversity:
    """Random resizing and padding, the same for all images of a batch.

    With probability p, x is resized to a random side r, s <= r < L = round(ratio * s), padded with
    zeros to the side L at a random position, and resized back to s, since many networks take
    images of one size alone. Both resizes are bilinear. If height and width differ, both are scaled
    by the same ratio.

    Attributes:
        ratio: L / s.
        probability: p.
    """

    ratio: float
    probability: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transform a batch, (batch, channels, height, width), to one of the same shape.

        Generators in the same state give the same transform.
        """
        height, width = images.shape[-2:]
        extents = self.draw(height, width, generator)
        return images if extents is None else placed(images, *extents)

    def draw(
        self, height: int, width: int, generator: torch.Generator
    ) -> tuple[Extent, Extent] | None:
        """Draw the vertical and the horizontal extent; None leaves images as they are."""
        drawn = torch.rand(4, generator=generator, dtype=torch.float64, device="cpu")
        apply, share, down, across = drawn
        if apply >= self.probability:
            return None
        return self._extent(height, share, down), self._extent(width, share, across)

    def _extent(self, side: int, share: Tensor, offset: Tensor) -> Extent:
        large = max(side + 1, round(self.ratio * side))
        small = side + int(share * (large - side))
        return Extent(small, large, int(offset * (large - small + 1)))


def placed(images: Tensor, down: Extent, across: Extent) -> Tensor:
    """Resize, pad with zeros and resize back."""
    resized = F.interpolate(images, size=(down.small, across.small), mode="bilinear")
    left, right = across.start, across.large - across.small - across.start
    top, bottom = down.start, down.large - down.small - down.start
    padded = F.pad(resized, (left, right, top, bottom))
    return F.interpolate(padded, size=images.shape[-2:], mode="bilinear")


DIVERSITY = {
    "di": InputDiversity(330 / 299, 0.7),
    "rdi": InputDiversity(340 / 299, 1.0),
}
"""The two kinds of input diversity by name.

``di`` (DI): Xie, Zhang, Zhou, Bai, Wang, Ren and Yuille 2019, "Improving transferability of
adversarial examples with input diversity", arXiv:1803.06978: from side 299 to 330, with the
probability 0.7 of targeted attacks. In the paper the network sees the larger image; here it is
resized back.

``rdi`` (RDI): Zou, Pan, Qiu, Liu, Rui and Li 2020, "Improving the transferability of adversarial
examples with resized-diverse-inputs, diversity-ensemble and region fitting", arXiv:2112.06011:
always, and to a larger side, 340, and back as in the paper.
"""


def scaled(images: Tensor, copy: int) -> Tensor:
    """Copy i = 0, 1, ... of the images, darker: x / 2^i. SI takes the mean of their gradients.

    SI: Lin, Song, He, Wang and Hopcroft 2020, "Nesterov accelerated gradient and scale invariance
    for adversarial attacks", arXiv:1908.06281, with 5 copies.
    """
    return images / 2**copy if copy else images


def others(count: int, generator: torch.Generator) -> Tensor:
    """For each of ``count`` images the index of another one, each index once.

    The images are put into a random cyclic order, in which each gets the one after it. A single
    image gets itself.
    """
    order = torch.randperm(count, generator=generator, device="cpu")
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))


def mixed(images: Tensor, other: Tensor) -> Tensor:
    """Add a share of another image: x + 0.2 x'; gradients flow to x alone.

    Admix: Wang, He, Wang and He 2021, "Admix: enhancing the transferability of adversarial
    attacks", arXiv:2102.00436: the mean of the gradients over 3 other images, each at the scales
    of SI, gamma_i (x + 0.2 x'). The others come from the batch.
    """
    return images + _ADMIX_SHARE * other.detach()
