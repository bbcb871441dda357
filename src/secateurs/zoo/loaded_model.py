"""A loaded classifier with its preprocessing and its classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs._io.text import one_line
from secateurs.errors import Argument, InvalidArgumentError, SecateursError
from secateurs.outputs import device_of, dtype_of, logits_of, moved
from secateurs.zoo.decoding import LARGEST
from secateurs.zoo.preprocess import Preprocess


@dataclass
class LoadedModel:
    """A classifier with its preprocessing and its classes.

    Attributes:
        model: in eval mode, float32, on the CPU.
        name: the specification that loads it again, such as ``torchvision:resnet18``.
        weights: the published name (``IMAGENET1K_V1``), a file name, ``pretrained``, ``random``
            (untrained), or ``as built`` for a function of the caller.
        num_classes: the number of logits, or None if unknown.
        classes: the names of the classes in the order of the logits, or None if unknown.
        preprocess: from an image to the model's input.
    """

    model: nn.Module
    name: str
    weights: str
    num_classes: int | None
    classes: Sequence[str] | None
    preprocess: Preprocess


def check_size(model: LoadedModel) -> None:
    """Run a model on a black image, to refuse a size that it does not take before any data is read.

    Raises:
        InvalidArgumentError: it does not take images of this size.
    """
    size = model.preprocess.img_size
    if size * size > LARGEST:
        return  # the data set refuses such an image
    try:
        _logits_of_black(model)
    except SecateursError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InvalidArgumentError(
            f"{model.name} takes no images of {size} x {size} pixels ({one_line(error)}): give "
            "another ",
            Argument("img_size"),
        ) from error


def count_classes(model: LoadedModel) -> int | None:
    """The number of a model's logits: ``num_classes``, or the number for a black image.

    Returns:
        None if ``num_classes`` is None and the model cannot read the image.
    """
    if model.num_classes is not None:
        return model.num_classes
    try:
        return _logits_of_black(model).shape[1]
    except Exception:  # the caller's own code; the error appears again when the model is used
        return None


def _logits_of_black(model: LoadedModel) -> Tensor:
    """The logits for a black image, without gradients; torch's random state does not change."""
    black = model.preprocess.blank()[None]
    images = moved(black, device_of(model.model), dtype_of(model.model))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return logits_of(model.model(images))
