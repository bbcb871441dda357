"""Self-distillation: a few hundred steps toward the dense network's outputs, with masks held."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.errors import InvalidArgumentError
from secateurs.repair.changes import Changes
from secateurs.repair.layerwise import PrunedWeight
from secateurs.repair.lockstep import Replaced


@dataclass(frozen=True)
class Distillation:
    """How to distill.

    Attributes:
        iterations: steps of the optimizer, at most.
        learning_rate: at its highest.
        seed: of the order of the images.
        batch_size: images a step.
        held_out: the part of the images that is not learned from, but decides what is kept.
        looks: how often the held-out images are looked at.
        patience: after how many looks without a better one it ends.
    """

    iterations: int = 300
    learning_rate: float = 1e-3
    seed: int = 0
    batch_size: int = 128
    held_out: float = 0.125
    looks: int = 15
    patience: int = 5


def distill(
    model: nn.Module,
    batches: Sequence[Tensor],
    dense: Mapping[int, Tensor],
    weights: Sequence[PrunedWeight],
    changes: Changes,
    how: Distillation,
) -> int:
    """Train a pruned network to give the dense network's outputs, which takes no label.

    The loss is the Kullback-Leibler divergence from the dense network's class probabilities
    (Hinton et al. 2015, at temperature 1). What is kept are the values that were best on held-out
    images, those from before among them.

    Args:
        model: the network, in evaluation mode: BatchNorm's statistics stay.
        batches: images.
        dense: what the dense network has in the place of the model's tensors, by their ids.
        weights: those that are pruned.
        changes: takes note of what is changed.
        how: the options.

    Returns:
        How many steps were taken.
    """
    images, wanted = torch.cat(list(batches)), outputs_of(model, batches, dense)
    held = max(1, round(how.held_out * len(images)))
    if held >= len(images):
        raise InvalidArgumentError(
            f"'distill' needs two images, of which one is held out, got {len(images)}"
        )
    source = torch.Generator().manual_seed(how.seed)
    order = torch.randperm(len(images), generator=source)
    checked, learned = order[:held], order[held:]
    places = [(module, name) for module in model.modules() for name in module._parameters]
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    for module, name in places:
        changes.about_to(module, name)
    masks = [(one.target.parameter, one.mask) for one in weights]
    before = [(p, p.grad, p.requires_grad) for p in parameters]
    size = min(how.batch_size, len(learned))
    best = [p.detach().clone() for p in parameters]
    least = _loss_on(model, images, wanted, checked)
    worse = taken = 0
    try:
        for p in parameters:
            p.grad = None
            p.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, how.learning_rate)
        queue = learned[:0]
        while taken < how.iterations and worse < how.patience:
            if len(queue) < size:
                queue = learned[torch.randperm(len(learned), generator=source)]
            chosen, queue = queue[:size], queue[size:]
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * _schedule(taken / how.iterations)
            optimizer.zero_grad()
            with torch.enable_grad():
                loss(logits_in(model(images[chosen])), wanted[chosen]).backward()
            optimizer.step()
            hold(masks)
            taken += 1
            if taken % max(1, how.iterations // how.looks) == 0 or taken == how.iterations:
                found = _loss_on(model, images, wanted, checked)
                worse = 0 if found < least else worse + 1
                if found < least:
                    least = found
                    best = [p.detach().clone() for p in parameters]
    finally:
        for p, grad, required in before:
            p.requires_grad_(required)
            p.grad = grad
    with torch.no_grad():
        for p, values in zip(parameters, best, strict=True):
            p.copy_(values)
    return taken


@torch.no_grad()
def hold(masks: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set to zero what is pruned."""
    for parameter, mask in masks:
        parameter.mul_(mask)


def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of class probabilities, a mean over images and tokens."""
    given = F.log_softmax(outputs.float().flatten(0, -2), -1)
    target = F.log_softmax(wanted.float().flatten(0, -2), -1)
    return F.kl_div(given, target, reduction="batchmean", log_target=True)


@torch.no_grad()
def divergence(outputs: Tensor, wanted: Tensor) -> float:
    """`loss` as a number."""
    return float(loss(outputs, wanted))


def logits_in(output: Any) -> Tensor:
    """The class scores in what a model returned, (images, ..., classes).

    Raises:
        InvalidArgumentError: there are none.
    """
    found = getattr(output, "logits", output)
    found = found[0] if isinstance(found, tuple | list) and found else found
    if not isinstance(found, Tensor) or found.dim() < 2:
        raise InvalidArgumentError(
            f"the model must return scores of shape (batch, ..., classes), got "
            f"{type(found).__name__}: wrap it in a module that does"
        )
    return found


@torch.no_grad()
def outputs_of(
    model: nn.Module, batches: Sequence[Tensor], values: Mapping[int, Tensor] | None = None
) -> Tensor:
    """The outputs on all images.

    Args:
        model: the network.
        batches: images.
        values: what to use in the place of tensors of the model, by their ids.
    """
    with Replaced(values or {}):
        return torch.cat([logits_in(model(batch)) for batch in batches])


def _loss_on(model: nn.Module, images: Tensor, wanted: Tensor, chosen: Tensor) -> float:
    found = outputs_of(model, images[chosen].split(128))
    value = divergence(found, wanted[chosen])
    return value if math.isfinite(value) else math.inf


def _schedule(progress: float) -> float:
    """Up for the first twentieth, then down as a cosine (Loshchilov and Hutter 2017)."""
    return min(1.0, 20 * progress + 0.05) * (1 + math.cos(math.pi * progress)) / 2
