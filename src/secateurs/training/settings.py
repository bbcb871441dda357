"""How a network is trained: optimizer, learning rate, batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from secateurs._validation import check_choice, check_count, check_not_negative
from secateurs.errors import InvalidArgumentError
from secateurs.training.augmentation import AUGMENTATIONS

OPTIMIZERS = ("sgd", "adam", "adamw")
MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one phase of a training.

    Attributes:
        epochs: passes over the training images; 0 for none.
        optimizer: ``"sgd"`` (Nesterov momentum 0.9), ``"adam"`` or ``"adamw"``.
        learning_rate: the highest one. It rises linearly for ``warmup`` epochs, and then falls to
            0 along half a cosine (Loshchilov and Hutter 2017, equation 5, without restarts).
        weight_decay: the L2 penalty, with ``"adamw"`` the decoupled decay; not of BatchNorm's
            parameters and biases.
        batch_size: images per step.
        warmup: epochs of the rise.
        augment: one of `AUGMENTATIONS`.
        amp: whether to compute in bfloat16 where torch's autocast does.

    Raises:
        InvalidArgumentError: a value is unknown or out of range.

    Example:
        >>> TrainingSettings(epochs=10).rate(step=50, steps=100)
        0.05
    """

    epochs: int
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    batch_size: int = 128
    warmup: float = 0.0
    augment: str = "none"
    amp: bool = False

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("augment", self.augment, tuple(AUGMENTATIONS))
        check_count("epochs", self.epochs, 0)
        check_count("batch_size", self.batch_size)
        for name in ("learning_rate", "weight_decay", "warmup"):
            object.__setattr__(self, name, check_not_negative(name, getattr(self, name)))

    def rate(self, step: float, steps: float, warmup: float = 0.0) -> float:
        """The learning rate of one step.

        Args:
            step: from 0.
            steps: the number of steps.
            warmup: in how many of them the rate rises.
        """
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(steps - warmup, 1)
        return self.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a model's parameters that require gradients.

        Raises:
            InvalidArgumentError: there are none.
        """
        trained = [p for p in model.parameters() if p.requires_grad]
        if not trained:
            raise InvalidArgumentError(
                "the network has nothing to train: no parameter of it requires gradients; call "
                "its requires_grad_() where it is made"
            )
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return _MAKERS[self.optimizer]([g for g in groups if g["params"]], lr=self.learning_rate)

    @property
    def described(self) -> str:
        """The optimizer's name with its settings, for result rows."""
        return f"sgd(momentum={MOMENTUM}, nesterov)" if self.optimizer == "sgd" else self.optimizer


_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=MOMENTUM, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
