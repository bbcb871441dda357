"""What members see instead of the image itself: resized, padded, scaled, mixed."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ADMIX_SHARE = 0.2


@dataclass(frozen=True)
class InputDiversity:
    """Random resizing and padding, the same for all images of a batch.

    With probability p, x is resized to a random side r, s <= r < L = round(ratio * s), padded with
    zeros to the side L at a random place, and resized back to s, so that every network can read it.
    Both resizes are bilinear. Of oblong images, both sides are scaled alike.

    Attributes:
        ratio: L / s.
        probability: p.
    """

    ratio: float
    probability: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transform a batch.

        Args:
            images: (batch, channels, height, width).
            generator: draws three to five numbers, whatever the batch, so parts of a batch that
                are handed generators in the same state are transformed alike.

        Returns:
            The same shape.
        """
        if torch.rand(1, generator=generator).item() >= self.probability:
            return images
        height, width = images.shape[-2:]
        large = (self._enlarged(height), self._enlarged(width))
        share = torch.rand(1, generator=generator).item()
        small = [s + int(share * (big - s)) for s, big in zip((height, width), large, strict=True)]
        resized = F.interpolate(images, size=small, mode="bilinear")
        spare = [big - s for big, s in zip(large, small, strict=True)]
        top, left = (
            int(torch.randint(room + 1, (1,), generator=generator).item()) for room in spare
        )
        padded = F.pad(resized, (left, spare[1] - left, top, spare[0] - top))
        return F.interpolate(padded, size=(height, width), mode="bilinear")

    def _enlarged(self, side: int) -> int:
        return max(side + 1, round(self.ratio * side))


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
    """For each of ``count`` images the position of another one, each taken once.

    The images are put in a random circle, and each is followed by the one that it is mixed with. A
    single image has no other: it gets itself.
    """
    circle = torch.randperm(count, generator=generator)
    return torch.empty_like(circle).scatter_(0, circle, circle.roll(-1))


def mixed(images: Tensor, other: Tensor) -> Tensor:
    """A little of another image, added: x + 0.2 x'; the gradient is that of x alone.

    Admix: Wang, He, Wang and He 2021, "Admix: enhancing the transferability of adversarial
    attacks", arXiv:2102.00436: the mean of the gradients over 3 other images, each at the scales
    of SI, gamma_i (x + 0.2 x'). The others come from the batch.
    """
    return images + _ADMIX_SHARE * other.detach()
