"""How `secateurs.repair` works: its steps and its options, checked."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypedDict, cast

from torch import Tensor

from secateurs._validation import (
    check_choice,
    check_count,
    check_keywords,
    check_not_negative,
    check_positive,
    check_ratio,
    check_seed,
    make_generator,
)
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.training.augmentation import AUGMENTATIONS

LAYERWISE = ("batchnorm", "channels", "reconstruct", "sparsegpt")
"""The steps that one pass through the layers can take together."""
STEPS = (*LAYERWISE, "distill")


class RepairKeywords(TypedDict, total=False):
    """The fields of `RepairOptions`, for functions that take them as keyword arguments."""

    damping: float
    batch_size: int
    most_values: int
    memory: int
    iterations: int
    learning_rate: float
    seed: int
    distill_batch_size: int
    features: float
    augment: str
    tighten: float
    state: str | os.PathLike[str] | None


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """How the steps of `secateurs.repair` work.

    Args:
        damping: of ``"reconstruct"`` and ``"sparsegpt"``, relative to the inputs' mean square.
        batch_size: how many images run at once.
        most_values: about how many values of each output channel are used to solve for its
            weights, at random positions that are the same in every run.
        memory: how many bytes of activations the network may hold of all images before a layer;
            where it would be more, the layer is repaired from the first images alone.
        iterations: of ``"distill"``, at most.
        learning_rate: of ``"distill"``, at its highest.
        seed: of the order of images in ``"distill"``, and of their random changes.
        distill_batch_size: images for each step of ``"distill"``.
        features: the weight of the error of some layers' outputs in the loss of ``"distill"``; 0
            for the network's outputs alone.
        augment: how ``"distill"`` changes images at random: ``"crop-flip"``, ``"flip"``,
            ``"shift"``, ``"none"``; ``"auto"`` is ``"crop-flip"`` for images of three channels.
        tighten: the share of ``"distill"``'s iterations over which weights are pruned step by
            step, beginning with the dense network; 0 for the final masks from the start.
        state: a file that is written after each layer and some times in ``"distill"``. If the call
            was interrupted, the same call goes on from it, to the same result. Where the steps
            take several passes each has a file: ``state.pt`` becomes ``state-1.pt`` and so on.

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    damping: float = 0.1
    batch_size: int = 8
    most_values: int = 200_000
    memory: int = 2**30
    iterations: int = 300
    learning_rate: float = 1e-3
    seed: int = 0
    distill_batch_size: int = 32
    features: float = 0.0
    augment: str = "auto"
    tighten: float = 0.0
    state: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "most_values", "memory", "iterations", "distill_batch_size"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        for name, usual in (("damping", 0.1), ("learning_rate", 1e-3)):
            object.__setattr__(self, name, check_positive(name, getattr(self, name), usual))
        object.__setattr__(self, "seed", check_seed("seed", self.seed))
        make_generator(None, self.seed)  # refuses a seed of more than 64 bits
        object.__setattr__(self, "features", check_not_negative("features", self.features))
        check_choice("augment", self.augment, ("auto", *AUGMENTATIONS))
        check_ratio("tighten", self.tighten)

    @classmethod
    def read(cls, function: Callable[..., object], keywords: Mapping[str, object]) -> Self:
        """Make options of the keyword arguments of a call; see `SelectionOptions.read`."""
        check_keywords(function, keywords, [field.name for field in fields(cls)])
        return cls(**cast("Any", keywords))

    def for_images(self, images: Tensor) -> Self:
        """The same with the changes that suit such images, if none were named.

        Raises:
            InvalidArgumentError: those that were named are for images alone.
        """
        pictures = images.dim() == 4 and images.is_floating_point()
        if self.augment == "auto":
            colours = pictures and images.shape[1] == 3
            return replace(self, augment="crop-flip" if colours else "none")
        if self.augment != "none" and not pictures:
            raise InvalidArgumentError(
                f"augment={self.augment!r} changes images of shape (channels, height, width), "
                f"these are of shape {tuple(images.shape[1:])}: write ",
                Argument("augment", "none"),
            )
        return self


def passes_of(steps: str | Sequence[str]) -> list[tuple[str, ...]]:
    """The steps, grouped by the passes that take them.

    Raises:
        InvalidArgumentError: a step is unknown, or there is none.
    """
    names = (steps,) if isinstance(steps, str) else tuple(steps)
    for name in names:
        check_choice("steps", name, STEPS)
    if not names:
        raise InvalidArgumentError(
            Argument("steps"), f" names none: write some of {', '.join(STEPS)}"
        )
    found: list[tuple[str, ...]] = []
    for name in names:
        if found and {name, *found[-1]} <= set(LAYERWISE) and name not in found[-1]:
            found[-1] = (*found[-1], name)
        else:
            found.append((name,))
    return found
