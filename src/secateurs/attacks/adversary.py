"""Checks of the arguments of an attack, and of what its members return."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError


def check_images(images: Tensor) -> None:
    """Refuse anything but a batch of pixels in [0, 1].

    Raises:
        InvalidArgumentError: not a float tensor of four dimensions, no images, or pixels outside
            of [0, 1].
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
    if images.element_size() == 1:
        raise InvalidArgumentError(
            f"images of {images.dtype} cannot be attacked, since sums of them round to few values: "
            "write images.float()"
        )
    low, high = (float(bound) for bound in images.detach().aminmax())
    if math.isnan(low):
        raise InvalidArgumentError("images has pixels that are NaN: look at how they were read")
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
    lowest = int(classes.to(torch.int64).min())  # torch finds no minimum of uint16 and wider
    if lowest < 0:
        raise InvalidArgumentError(f"classes count from 0, got {lowest}")


def check_members(members: Sequence[nn.Module]) -> list[nn.Module]:
    """The members as a list.

    Raises:
        InvalidArgumentError: there are none, one is no module, or one is in training mode.
    """
    one = isinstance(members, nn.Module) and not isinstance(members, nn.ModuleList)
    if one or not isinstance(members, Iterable):
        raise InvalidArgumentError(
            f"members must be a sequence of networks, got {type(members).__name__}: for one "
            "network write [model]"
        )
    found = list(members)
    if not found:
        raise InvalidArgumentError("members is empty: an attack needs at least one network")
    for index, member in enumerate(found):
        if not isinstance(member, nn.Module):
            raise InvalidArgumentError(
                f"member {index} must be an nn.Module, got {type(member).__name__}"
            )
        for name, module in member.named_modules():
            if module.training and _differs_in_training(module):
                raise InvalidArgumentError(
                    f"{name or 'the network'} of member {index} is in training mode, where each "
                    "forward pass changes its statistics or draws from the global generator: call "
                    "eval() first"
                )
    return found


def _differs_in_training(module: nn.Module) -> bool:
    """Whether two forward passes of a layer in training mode may differ."""
    if isinstance(module, _NormBase):
        return module.track_running_stats
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return isinstance(module, _DropoutNd | nn.RReLU)


def check_logits(logits: Tensor, rows: int, highest: int, known: int) -> None:
    """Refuse a member's logits that do not match the images, the classes or the other members.

    Args:
        logits: (batch, classes), from one member.
        rows: how many images the member was given.
        highest: the largest of the classes that are attacked.
        known: how many classes the first member knows.
    """
    if len(logits) != rows:
        raise InvalidArgumentError(
            f"a member returned {counted(len(logits), 'row')} of logits for "
            f"{counted(rows, 'image')}: it must return one row an image"
        )
    count = logits.shape[1]
    if count != known:
        raise InvalidArgumentError(
            "members must know the same classes, since their logits are averaged: "
            f"one knows {known}, another {count}"
        )
    if highest >= count:
        raise InvalidArgumentError(
            f"classes run up to {highest}, but the members know classes 0 to {count - 1}: "
            "are these the right classes for these networks?"
        )
