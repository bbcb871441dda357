"""Calibration images: those that a repair uses, without labels."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InvalidArgumentError
from secateurs.outputs import device_of, dtype_of, evaluation_mode, moved


def calibration_images(given: Tensor | Iterable[Any], batch_size: int) -> list[Tensor]:
    """Images in batches of one size.

    Args:
        given: (images, ...), or batches of images, or of pairs of which the first are images.
        batch_size: of the result.

    Raises:
        InvalidArgumentError: there are none, or they are of several shapes, or NaN.
    """
    if isinstance(given, Tensor):
        images = given
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        batches = [batch for batch in map(_first, given) if len(batch)]
        shapes = list(dict.fromkeys(tuple(batch.shape[1:]) for batch in batches))
        if len(shapes) > 1:
            raise InvalidArgumentError(
                f"the calibration images are of several shapes, {shapes[0]} and {shapes[1]}: "
                "bring them to one size first"
            )
        images = torch.cat(batches) if batches else torch.empty(0)
    else:
        raise InvalidArgumentError(
            f"images must be a tensor or batches of tensors, got {type(given).__name__}: write "
            "torch.stack(images), or hand in a DataLoader"
        )
    if images.dim() < 2 or not len(images):
        raise InvalidArgumentError(
            f"there are no calibration images (a tensor of shape {tuple(images.shape)}): hand in "
            "some tens of them, as (images, ...)"
        )
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        raise InvalidArgumentError(
            "a calibration image holds NaN or infinity: leave it out, or look at its preprocessing"
        )
    return list(images.split(batch_size))


@contextmanager
def calibrating(
    model: nn.Module, images: Tensor | Iterable[Any], batch_size: int
) -> Generator[list[Tensor]]:
    """For a ``with`` block, put a model in evaluation mode, and give batches of images for it.

    Args:
        model: the network.
        images: as for `calibration_images`.
        batch_size: of the batches.

    Yields:
        The batches on the model's device, in its dtype, in the memory format that is fastest.

    Raises:
        InvalidArgumentError: as `calibration_images`.
    """
    device, dtype = device_of(model), dtype_of(model)
    batches = [moved(batch, device, dtype) for batch in calibration_images(images, batch_size)]
    with evaluation_mode(model), torch.inference_mode(False):
        batches = _channels_last(model, batches)  # the same name, so that the copies are freed
        yield batches


@torch.no_grad()
def _channels_last(model: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    """Batches with channels last, with which CPUs convolve fastest, if the model takes that.

    Args:
        model: the network; with ``view`` after a convolution it may not take it.
        batches: images, on the model's device.
    """
    if batches[0].dim() != 4:
        return batches
    changed = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    try:
        model(changed[0][:1])
    except Exception:  # if it takes no other either, `layer_uses` says why
        return [batch.contiguous() for batch in batches]
    return changed


def _first(batch: Any) -> Tensor:
    found = batch[0] if isinstance(batch, list | tuple) and len(batch) else batch
    if not isinstance(found, Tensor) or not found.dim():
        raise InvalidArgumentError(
            "a batch of calibration images must be a tensor, or begin with one, got "
            f"{type(found).__name__}: write such as [batch['pixel_values'] for batch in loader], "
            "or torch.from_numpy(images)"
        )
    return found
