"""Knowledge distillation: a network learns from labels and from the dense network's outputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs._validation import check_positive, check_ratio
from secateurs.outputs import logits_of

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes images, the network's logits and labels, and returns the loss."""


def cross_entropy(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of labels alone."""
    del images
    return F.cross_entropy(logits, labels)


def soft_divergence(logits: Tensor, wanted: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(v / T) || softmax(z / T)), a mean over images, in nats.

    Args:
        logits: z, images x classes.
        wanted: v.
        temperature: T. The higher it is, the more the classes with low probabilities count. With
            the factor T^2, gradients have about the same size for every T (Hinton et al. 2015,
            section 2).
    """
    given = F.log_softmax(logits / temperature, -1)
    target = F.log_softmax(wanted / temperature, -1)
    return temperature**2 * F.kl_div(given, target, reduction="batchmean", log_target=True)


class KnowledgeDistillation:
    r"""The loss of a network that also learns the outputs of a dense one.

    With labels y, and logits z of the network and v of the dense one, the loss is

    .. math:: (1 - a) H(y, \text{softmax}(z))
              + a T^2 KL(\text{softmax}(v / T) \,\|\, \text{softmax}(z / T)),

    cross-entropy and `soft_divergence` (Hinton, Vinyals and Dean 2015, section 2).

    Near the dense network's weights this loss is curved more than cross-entropy is, thirty times
    for LeNet-5 with weight 0.9 and T = 4 (``benchmarks/curvature.py``), so it needs a lower
    learning rate.

    Args:
        dense: the dense network; it is put into evaluation mode, and its parameters are frozen.
        weight: a, from 0 (labels alone) to 1 (no labels).
        temperature: T, above 0.

    Raises:
        InvalidArgumentError: a number is out of range.

    Example:
        >>> import copy, torch, secateurs as sc
        >>> from secateurs.training import KnowledgeDistillation
        >>> model = torch.nn.Linear(4, 3)
        >>> loss_of = KnowledgeDistillation(copy.deepcopy(model), weight=0.9, temperature=4.0)
        >>> _ = sc.global_prune(model, 0.5)
        >>> images, labels = torch.ones(2, 4), torch.tensor([0, 2])
        >>> loss_of(images, model(images), labels).backward()
    """

    def __init__(self, dense: nn.Module, weight: float, temperature: float) -> None:
        self.dense = dense.eval().requires_grad_(False)
        self.weight = check_ratio("weight", weight)
        self.temperature = check_positive("temperature", temperature, 4.0)

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            images: the networks' input.
            logits: the network's output for them.
            labels: their classes.
        """
        with torch.no_grad():
            wanted = logits_of(self.dense(images)).float()
        hard = F.cross_entropy(logits.float(), labels)
        soft = soft_divergence(logits.float(), wanted, self.temperature)
        return (1 - self.weight) * hard + self.weight * soft
