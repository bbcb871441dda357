"""Gradients for the scores that need them."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.evaluation.batches import checked, workers_watched
from secateurs.evaluation.metrics import check_labels
from secateurs.outputs import device_of, dtype_of, evaluation_mode, logits_of, moved


def accumulate_gradients(model: nn.Module, loader: Iterable[Any]) -> int:
    """Store the gradient of the mean cross-entropy over all images in each parameter's ``grad``.

    The model is in ``eval()`` mode meanwhile, so that batch statistics do not change; frozen
    parameters get a gradient too. Modes and ``requires_grad`` are restored afterwards.

    Args:
        model: a classifier.
        loader: batches of (images, labels), preferably not those that will be scored.

    Returns:
        The number of images.

    Raises:
        InvalidArgumentError: there are no images, a batch is not a pair of tensors, or a label is
            not a class of the model. No parameter has a gradient then.
    """
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    device, dtype = device_of(model), dtype_of(model)
    count = batches = 0
    model.zero_grad()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with evaluation_mode(model), workers_watched(), torch.enable_grad():
            for images, labels in map(checked, loader):
                batches += 1
                if not len(labels):
                    continue
                logits = logits_of(model(moved(images, device, dtype)))
                check_labels(logits, labels)
                F.cross_entropy(logits, labels.to(device), reduction="sum").backward()
                count += len(labels)
    except BaseException:
        model.zero_grad()  # the sums over some of the images are no scores
        raise
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not count:
        why = "none of the images could be read" if batches else "the loader gave no images"
        raise InvalidArgumentError(f"{why}: there is nothing to compute gradients from")
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= count
    return count
