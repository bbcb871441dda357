"""Random changes of training images, a whole batch at once, on any device."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad by an eighth of the side, cut out a random window, mirror with probability 1/2.

    For 32 pixels the padding is 4, as in He et al. (2016), section 4.2. The padding has the value
    0, which after the preprocessing is the mean colour.

    Args:
        images: batch x channels x height x width.
        generator: on the CPU, so that every device draws the same numbers.

    Returns:
        New images of the same shape.
    """
    return _windows(flip(images, generator), -(-images.shape[-1] // 8), generator)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image, left to right, with probability 1/2.

    Args:
        images: batch x channels x height x width.
        generator: on the CPU.

    Returns:
        New images of the same shape.
    """
    mirrored = _draw(2, len(images), generator).bool().to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to two pixels in both directions, for digits and the like.

    New pixels at an edge get the values of that edge, which is background.

    Args:
        images: batch x channels x height x width.
        generator: on the CPU.

    Returns:
        New images of the same shape.
    """
    return _windows(images, 2, generator, mode="replicate")


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images as they are; nothing is drawn."""
    del generator
    return images


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": unchanged,
    "shift": shift,
    "flip": flip,
    "crop-flip": crop_flip,
}
"""The values of ``augment``."""


def _draw(values: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(values, (count,), generator=generator, device="cpu")


def _windows(
    images: Tensor, padding: int, generator: torch.Generator, mode: str = "constant"
) -> Tensor:
    """Pad each image, and cut out a window of its former size at a random offset."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode=mode)
    down, right = (_draw(2 * padding + 1, count, generator).to(images.device) for _ in range(2))
    rows = (down[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (right[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    which = torch.arange(count, device=images.device)[:, None, None, None]
    return padded[which, torch.arange(channels, device=images.device)[:, None, None], rows, columns]
