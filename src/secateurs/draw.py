"""Bernoulli draws: which candidates are pruned this time."""

import numpy as np
import torch

from secateurs import layout

# With this many random bits in the first comparison, one in 256 draws needs a second look.
_LEVELS = 256


def bernoulli(
    shape: tuple[int, ...], p: float, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Draw independent Bernoulli(p) variables.

    A uniform number is compared with p eight bits at a time: almost every draw is decided by one
    random byte, and the few that tie with p's first byte are decided by 53 further bits, so the
    probability is exact to 2**-61 at an eighth of the random numbers that floats would take.

    Args:
        shape: the shape to draw.
        p: the probability of True, from 0 to 1.
        generator: the source; its state advances. Draws are made on its device, so that they do
            not depend on where they are used.
        device: where the result is wanted.

    Returns:
        A bool tensor of ``shape`` on ``device``.
    """
    if p in (0.0, 1.0):
        return torch.full(shape, p == 1.0, dtype=torch.bool, device=device)
    count = torch.Size(shape).numel()
    scaled = p * _LEVELS
    whole = int(scaled)
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    drawn, undecided = _compare(words.view(torch.uint8)[:count], whole)
    finer = torch.rand(
        undecided.numel(), generator=generator, dtype=torch.float64, device=generator.device
    )
    drawn[undecided] = finer < scaled - whole
    return drawn.reshape(shape).to(device)


def _compare(values: torch.Tensor, bound: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of some bytes are below ``bound``, and the places of those that equal it."""
    if values.device.type != "cpu":
        return values < bound, (values == bound).nonzero().reshape(-1)
    # Block by block in numpy, which finds the few places without a pass over memory.
    below = torch.empty(values.shape, dtype=torch.bool)
    source, target = values.numpy(), below.numpy()
    places: list[torch.Tensor] = []
    for start in range(0, len(source), layout.BLOCK):
        block = source[start : start + layout.BLOCK]
        np.less(block, bound, out=target[start : start + layout.BLOCK])
        places.append(torch.from_numpy(np.flatnonzero(block == bound) + start))
    return below, torch.cat(places) if places else torch.empty(0, dtype=torch.int64)
