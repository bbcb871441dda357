"""Random numbers of an attack, and noise as large as an attack, its baseline."""

import numpy as np
import torch
from torch import Tensor

from secateurs._validation import check_seed
from secateurs.attacks.adversary import check_images
from secateurs.attacks.epsilon import parse_epsilon


def generator_at(seed: int, *index: int) -> torch.Generator:
    """A generator that depends only on a seed and an index, such as (step, pass, copy, member).

    So the draws do not change when images are attacked in parts, over more steps or with more
    members.
    """
    # The algorithm of SeedSequence is fixed: it gives the same in every version of numpy.
    entropy = 2 * abs(seed) + (seed < 0)
    words = np.random.SeedSequence(entropy, spawn_key=index).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]))


def noise(images: Tensor, eps: float | str, seed: int = 0) -> Tensor:
    """Add eps or -eps to each pixel at random, and clip the result to [0, 1].

    The change is as large as that of any attack with this eps, and depends on no network.

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
        # The dtype is given, since another default dtype would draw other numbers.
        drawn = torch.rand(
            image.shape, generator=generator_at(seed, index), dtype=torch.float32, device="cpu"
        )
        image += size * torch.where(drawn < 0.5, 1.0, -1.0).to(image)
    return noisy.clamp_(0, 1)
