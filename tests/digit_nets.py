"""Networks for the digits that need no training: random features, and a linear layer solved for."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.transfer import Network, as_network
from secateurs.zoo import load_model
from secateurs.zoo.digits import DIGITS_PREPROCESS, digits_images


def hidden() -> nn.Module:
    """A hidden layer."""
    return solved(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), seed=0)


def convolved() -> nn.Module:
    """One convolution."""
    return solved(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), seed=1)


def normed() -> nn.Module:
    """A convolution and a normalisation."""
    layers = nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return solved(*layers, seed=2)


def bare() -> nn.Module:
    """Convolutions alone, the last one 3 x 3, so nothing that rapa prunes."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 16, 6), nn.ReLU(), nn.Conv2d(16, 10, 3), nn.Flatten())
    return described(model)


def eleven() -> nn.Module:
    """One answer too many."""
    model = described(nn.Sequential(nn.Flatten(), nn.Linear(64, 11)))
    model.num_classes = 11  # type: ignore[assignment]  # what the zoo reads
    del model.classes
    return model


def renamed() -> nn.Module:
    """The classes of `hidden`, in another order."""
    model = hidden()
    model.classes = tuple("9876543210")  # type: ignore[assignment]  # what the zoo reads
    return model


def wrong() -> nn.Module:
    """Never right: answers the next digit."""
    model: Any = hidden()
    model[-1].weight.data = model[-1].weight.data.roll(1, 0)
    model[-1].bias.data = model[-1].bias.data.roll(1, 0)
    return model


def networks(*names: str) -> list[Network]:
    """Some of these, prepared for attacks and called by their names alone; made once."""
    return [network(name) for name in names]


@cache
def network(name: str) -> Network:
    return as_network(load_model(f"digit_nets:{name}"), name=name)


def described(model: nn.Module) -> nn.Module:
    model.classes = tuple("0123456789")  # type: ignore[assignment]  # what the zoo reads
    model.preprocess = dict(DIGITS_PREPROCESS)  # type: ignore[assignment]  # what the zoo reads
    return model


def solved(*layers: nn.Module, seed: int) -> nn.Module:
    """Random layers with the linear layer that fits the training images best."""
    torch.manual_seed(seed)
    features = nn.Sequential(*[fresh(layer) for layer in layers])
    levels, labels = training()
    pixels = torch.from_numpy(levels).unsqueeze(1).float() / 255 * 2 - 1
    with torch.no_grad():
        seen = nn.functional.pad(features(pixels), (0, 1), value=1.0).double()
        wanted = nn.functional.one_hot(torch.from_numpy(labels), 10).double()
        gram = seen.T @ seen + 1e-2 * len(seen) * torch.eye(seen.shape[1], dtype=torch.float64)
        weights: Tensor = torch.linalg.solve(gram, seen.T @ wanted).float()
        last = nn.Linear(len(weights) - 1, 10)
        last.weight.copy_(weights[:-1].T)
        last.bias.copy_(weights[-1])
    return described(nn.Sequential(*features, last))


training = cache(lambda: digits_images("train"))


def fresh(layer: nn.Module) -> nn.Module:
    """The layer, with weights from the seed that holds now: it may have been made before it."""
    reset = getattr(layer, "reset_parameters", None)
    if reset is not None:
        reset()
    return layer
