"""Random noise of the same size as an attack: the baseline of an attack."""

import torch
from torch import Tensor

from secateurs._validation import check_seed
from secateurs.attacks.adversary import check_images
from secateurs.attacks.attack_seeds import generator_at
from secateurs.attacks.epsilon import parse_epsilon


def noise(images: Tensor, eps: float | str, seed: int = 0) -> Tensor:
    """Add eps or -eps to each pixel at random, and keep it in [0, 1].

    It is as large as an attack can be, and uses no network.

    Args:
        images: pixels in [0, 1], (batch, channels, height, width).
        eps: the change of each pixel, see `parse_epsilon`.
        seed: seed of the signs; those of an image depend on its index in the batch.

    Raises:
        InvalidArgumentError: an argument is wrong.

    Example:
        >>> noise(torch.full((1, 1, 1, 3), 0.5), "51/255") - 0.5
        tensor([[[[-0.2000,  0.2000, -0.2000]]]])
    """
    check_images(images)
    size, seed = parse_epsilon(eps), check_seed("seed", seed)
    noisy = images.detach().clone()
    for index, image in enumerate(noisy):
        up = torch.rand(image.shape, generator=generator_at(seed, index)) < 0.5
        image += torch.where(up, size, -size).to(image)
    return noisy.clamp_(0, 1)
