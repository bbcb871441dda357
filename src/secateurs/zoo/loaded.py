"""What the zoo hands out for a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

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
