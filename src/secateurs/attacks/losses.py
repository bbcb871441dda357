"""Losses of an attack, to be maximised: one value for each image, whatever the batch.

Each is written for a targeted attack; an untargeted one maximises its negative at the true class.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def ce(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy: log p_t = z_t - log sum_j exp z_j; untargeted -log p_y.

    Its gradient vanishes as p_t approaches 1.

    Args:
        logits: z, shape (batch, classes).
        classes: t, or y of an untargeted attack; shape (batch,), int64.

    Returns:
        One value for each image, shape (batch,). All losses take and return the same.
    """
    return -F.cross_entropy(logits, classes, reduction="none")


def logit(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit z_t, whose gradient does not vanish; untargeted -z_y.

    Zhao, Liu and Larson 2021, "On success and simplicity: a second look at transferable targeted
    attacks", arXiv:2012.11207.
    """
    return logits.gather(1, classes[:, None])[:, 0]


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """The margin of a class: z_t - max_{j != t} z_j; untargeted max_{j != y} z_j - z_y.

    Carlini and Wagner 2017, "Towards evaluating the robustness of neural networks",
    arXiv:1608.04644, without their clipping.
    """
    others = logits.scatter(1, classes[:, None], float("-inf"))
    return logit(logits, classes) - others.amax(1)


LOSSES: dict[str, Loss] = {"ce": ce, "logit": logit, "margin": margin}
"""The losses by name."""

LINEAR = frozenset({"logit"})
"""Losses that are linear in the logits: that of a mean is the mean of the members' losses."""
