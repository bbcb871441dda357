"""What the zoo hands out for a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from secateurs.outputs import device_of, dtype_of, logits_of, moved
from secateurs.zoo.preprocess import Preprocess


@dataclass
class LoadedModel:
    """A classifier with all that is needed to feed it and to read its answers.

    Attributes:
        model: in eval mode, float32, on the CPU.
        name: the specification that loads it again, such as ``torchvision:resnet18``.
        weights: the published name (``IMAGENET1K_V1``), a file name, ``pretrained``, ``random``
            (untrained), or ``as built`` for a function of the caller.
        num_classes: length of the answers, or None if unknown.
        classes: a name for each class in the model's order, or None if it carries none.
        preprocess: what turns an image into its input.
    """

    model: nn.Module
    name: str
    weights: str
    num_classes: int | None
    classes: Sequence[str] | None
    preprocess: Preprocess


def count_answers(model: LoadedModel) -> int | None:
    """How many classes a model answers: what it says, or what it does with a black image.

    It is tried without gradients, in the mode that it is in; torch's random state stays as it is.

    Returns:
        None where it says nothing and cannot read the image.
    """
    if model.num_classes is not None:
        return model.num_classes
    pre = model.preprocess
    try:
        from PIL import Image

        black = pre(Image.new(pre.image_mode, (64, 64)))[None]
        images = moved(black, device_of(model.model), dtype_of(model.model))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return logits_of(model.model(images)).shape[1]
    except Exception:  # the caller's own code; whatever is wrong shows when it is scored
        return None
