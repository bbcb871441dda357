"""Checks of the arguments of an attack, and of what its members return."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError


def check_images(images: Tensor) -> None:
    """Refuse anything but a batch of pixels in [0, 1].

    Raises:
        InvalidArgumentError: not a float tensor of four dimensions, no images, or pixels outside.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InvalidArgumentError(
            f"images must be a float tensor with pixels in [0, 1], got {kind}; "
            "for bytes write images / 255"
        )
    if images.dim() != 4 or not images.numel():
        raise InvalidArgumentError(
            "images must be of shape (batch, channels, height, width) with at least one image, "
            f"got {tuple(images.shape)}"
        )
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        hint = "divide by 255" if low >= 0 and 1 < high <= 255 else "attack before normalisation"
        raise InvalidArgumentError(
            f"images must have pixels in [0, 1], got {low:g} to {high:g}: {hint}"
        )


def check_classes(classes: Tensor, images: Tensor) -> None:
    """Refuse anything but one class for each image."""
    whole = isinstance(classes, Tensor) and not (
        classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool
    )
    if not whole or tuple(classes.shape) != (len(images),):
        got = (
            f"{classes.dtype} of shape {tuple(classes.shape)}"
            if isinstance(classes, Tensor)
            else type(classes).__name__
        )
        raise InvalidArgumentError(
            f"classes must be one whole number an image, a tensor of shape ({len(images)},), "
            f"got {got}"
        )
    if int(classes.min()) < 0:
        raise InvalidArgumentError(f"classes count from 0, got {int(classes.min())}")


def check_members(members: Sequence[nn.Module]) -> list[nn.Module]:
    """The members as a list.

    Raises:
        InvalidArgumentError: there are none, one is no module, or one is in training mode.
    """
    if isinstance(members, nn.Module) and not isinstance(members, nn.ModuleList):
        raise InvalidArgumentError("members must be a sequence: for one network write [model]")
    found = list(members)
    if not found:
        raise InvalidArgumentError("members is empty: an attack needs at least one network")
    for index, member in enumerate(found):
        if not isinstance(member, nn.Module):
            raise InvalidArgumentError(
                f"member {index} must be an nn.Module, got {type(member).__name__}"
            )
        for name, module in member.named_modules():
            if module.training and isinstance(module, _BatchNorm | _DropoutNd):
                raise InvalidArgumentError(
                    f"{name or 'the network'} of member {index} is in training mode, where each "
                    "forward pass changes its statistics or draws from the global generator: call "
                    "eval() first"
                )
    return found


def check_logits(logits: Tensor, rows: int, highest: int, others: int) -> None:
    """Refuse a member's logits that do not match the images, the classes or the other members.

    There are ``rows`` images, classes up to ``highest``, and ``others`` logits of other members.
    """
    if len(logits) != rows:
        raise InvalidArgumentError(
            f"a member returned {counted(len(logits), 'row')} of logits for "
            f"{counted(rows, 'image')}: it must return one row an image"
        )
    count = logits.shape[1]
    if count != others:
        raise InvalidArgumentError(
            "members must know the same classes, since their logits are averaged: "
            f"one knows {others}, another {count}"
        )
    if highest >= count:
        raise InvalidArgumentError(
            f"classes run up to {highest}, but the members know classes 0 to {count - 1}: "
            "are these the right classes for these networks?"
        )
