"""Gradients for the scores that need them."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from secateurs.evaluate.accuracy import device_of, logits_of


def accumulate_gradients(model: nn.Module, loader: Iterable[Any]) -> int:
    """Leave the gradient of the mean cross-entropy over all batches in each parameter's ``grad``.

    The model is differentiated in ``eval()`` mode, so that batch statistics do not change, and
    frozen parameters get a gradient too; both are put back afterwards.

    Args:
        model: a classifier.
        loader: batches of (images, labels), best not those that will be scored.

    Returns:
        The number of images.
    """
    modes = [(module, module.training) for module in model.modules()]
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    device, count = device_of(model), 0
    model.eval().zero_grad()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            for images, labels in loader:
                logits = logits_of(model(images.to(device)))
                F.cross_entropy(logits, labels.to(device), reduction="sum").backward()
                count += len(labels)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, training in modes:
            module.training = training
    for parameter in model.parameters():
        if parameter.grad is not None and count:
            parameter.grad /= count
    return count
