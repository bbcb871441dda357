"""A model and data that need no download: the digits of scikit-learn.

1,797 grey images of 8 x 8 pixels (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
Digits, UCI Machine Learning Repository, 1998). Of each class, in the order of scikit-learn, every
second image is held out: 901 images train the network, 896 test it. The split uses no random
numbers, so it is the same in every version of every library.
"""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs._io.durable import replace_files
from secateurs._io.regular_files import read_regular
from secateurs._validation import check_choice
from secateurs.errors import FailureError, require
from secateurs.zoo.downloads import cache_folder

RECIPE = "digits-cnn-1"  # name of the cached file: increase the number when anything below changes
SPLITS = ("train", "test")
_MEAN, _STD = 0.5, 0.5
_BATCH, _DECAY, _SEED = 64, 1e-2, 0
DIGITS_PREPROCESS: dict[str, Any] = {
    "img_size": 8,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (_MEAN,),
    "std": (_STD,),
}
"""The preprocessing of all networks for the digits."""


class DigitsNetwork(nn.Sequential):
    """Layers in a row for grey images of digits, with 10 logits.

    Attributes:
        num_classes: 10.
        classes: "0" to "9".
        preprocess: the values of its preprocessing, by name.
        weights_name: the recipe that trained it, or ``random``.

    Args:
        layers: the layers by name, in order.
        preprocess: the values of its preprocessing; default those for images of 8 x 8 pixels.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], preprocess: Mapping[str, Any] = DIGITS_PREPROCESS
    ) -> None:
        super().__init__(OrderedDict(layers))
        self.num_classes = 10
        self.classes = tuple(str(digit) for digit in range(10))
        self.preprocess = dict(preprocess)
        self.weights_name = "random"


class DigitsCNN(DigitsNetwork):
    """Three convolutions with BatchNorm and two linear layers; 40,506 parameters."""

    def __init__(self) -> None:
        super().__init__(
            {
                **convolution(1, 1, 16),
                **convolution(2, 16, 32),
                "pool2": nn.MaxPool2d(2),
                **convolution(3, 32, 64),
                "pool3": nn.MaxPool2d(2),
                "flatten": nn.Flatten(),
                "linear1": nn.Linear(64 * 2 * 2, 64),
                "relu4": nn.ReLU(),
                "linear2": nn.Linear(64, 10),
            }
        )


@dataclass(frozen=True)
class Recipe:
    """How a network for the digits is built and trained.

    Attributes:
        name: of the cached file; ends in a number, to increase when the weights would change.
        build: makes the network, with weights from the global generator.
        epochs: passes over the training split.
        rate: the highest learning rate.
    """

    name: str
    build: Callable[[], DigitsNetwork]
    epochs: int = 20
    rate: float = 5e-3


def digits_images(split: str = "test") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of one split and their labels.

    Args:
        split: ``train`` (901 images) or ``test`` (896).

    Returns:
        Grey levels 0 to 255, N x 8 x 8, and the digits, N; sorted by digit, then in the order of
        scikit-learn.

    Raises:
        InvalidArgumentError: an unknown split.
    """
    require("sklearn.datasets", "the data digits", "scikit-learn")
    from sklearn.datasets import load_digits

    check_choice("split", split, SPLITS)
    bunch: Any = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    start = SPLITS.index(split)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[start::2] for digit in range(10)])
    levels = np.round(np.asarray(bunch.images)[chosen] * (255 / 16)).astype(np.uint8)
    return levels, labels[chosen]


def digits_cnn(pretrained: bool = True) -> DigitsNetwork:
    """The digits network, trained on the training split; its accuracy on the test split is 99%.

    The first call trains it (a few seconds, seeded, one thread) and keeps the weights in the
    user's cache folder, or in SECATEURS_CACHE; later calls read them. The caller's random state,
    gradient mode and number of threads do not change.

    Args:
        pretrained: False for fresh weights from the global generator.

    Returns:
        The network in eval mode.

    Example:
        >>> model = digits_cnn(pretrained=False)
        >>> model(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    return made(Recipe(RECIPE, DigitsCNN), pretrained)


def made(recipe: Recipe, pretrained: bool) -> DigitsNetwork:
    """The network of a recipe in eval mode, trained at the first call and cached for later ones.

    Training is seeded and uses one thread. Without ``pretrained`` it has fresh weights from the
    global generator.
    """
    if not pretrained:
        return recipe.build().eval()
    try:
        file = cache_folder() / f"{recipe.name}.safetensors"
    except FailureError as error:
        file = None
        warnings.warn(f"a digits network is trained again each time: {error}", stacklevel=3)
    with _fixed_settings():
        state = None if file is None else _read(file)
        if state is None:
            state = _train(recipe)
            if file is not None:
                _write(file, state)
        model = recipe.build()
        model.load_state_dict(state)
    model.weights_name = recipe.name
    return model.eval()


def convolution(index: int, inputs: int, outputs: int) -> dict[str, nn.Module]:
    """A 3 x 3 convolution with BatchNorm and ReLU, by the names of the layers."""
    return {
        f"conv{index}": nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        f"norm{index}": nn.BatchNorm2d(outputs),
        f"relu{index}": nn.ReLU(),
    }


@contextmanager
def _fixed_settings() -> Generator[None]:
    """One thread, float32, gradients and the CPU, whatever the caller's settings are."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.device("cpu"),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def _train(recipe: Recipe) -> dict[str, Tensor]:
    from secateurs._progress import progress_bar

    torch.manual_seed(_SEED)  # _fixed_settings restores the caller's state
    model = recipe.build()
    levels, digits = digits_images("train")
    images = torch.from_numpy(levels).unsqueeze(1).float().div(255).sub(_MEAN).div(_STD)
    labels = torch.from_numpy(digits)
    steps, rate = recipe.epochs * -(-len(labels) // _BATCH), recipe.rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    with progress_bar(f"Training {recipe.name}", recipe.epochs, unit="epochs") as bar:
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(labels)).split(_BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
            bar.advance(1)
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _read(file: Path) -> dict[str, Tensor] | None:
    """The cached weights; None if there are none, or if they are damaged in any way."""
    try:
        content = read_regular(file)
        state = load(content)
    except (OSError, SafetensorError, ValueError):
        return None
    # The file's metadata holds the digest, which is found nowhere else in it.
    return state if _digest(state).encode() in content else None


def _write(file: Path, state: dict[str, Tensor]) -> None:
    """Write the cached weights; `replace_files` lets no reader see half a file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # With the usual permissions, so that several users can share a cache.
        replace_files({file: save(state, metadata={"sha256": _digest(state)})})
    except (OSError, FailureError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or error
        warnings.warn(
            f"cannot keep a trained digits network in {file.parent} ({reason}), so it "
            "is trained again next time; set SECATEURS_CACHE to a folder that can be written",
            stacklevel=5,
        )


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
