"""Pruned networks to accelerate, and a clock by which each kernel takes a given time."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import secateurs as sc
from secateurs.acceleration.layer_swap import fast_layer
from secateurs.acceleration.stopwatch import Functions
from secateurs.errors import AccelerationWarning

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(288, 16), nn.Linear(16, 4)).eval()


def pruned(ratio: float = 0.9) -> nn.Module:
    net = network()
    sc.global_prune(net, ratio, scope="layer")
    return net


def always(seconds: Mapping[str, float]) -> Callable[[Functions], dict[str, float]]:
    """A clock by which each way takes always the same; 2 seconds where nothing is said."""
    return lambda functions: {name: seconds.get(name, 2.0) for name in functions}


SPARSE = always(
    {"dense": 1.0, "csr": 0.5, "im2col csr": 0.8, "shifted csr": 0.7, "accelerated": 0.6}
)


def accelerate(net: nn.Module, example: Any = IMAGES, **options: Any) -> sc.Acceleration:
    return sc.accelerate(net, example, **{"measure": SPARSE, **options})


def replaced(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if fast_layer(module) is not None]


def quietly(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run()
    return found, [str(w.message) for w in caught if w.category is AccelerationWarning]


def perceptron(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 9), *between, nn.Linear(9, 5)).eval()
    sc.global_prune(net, 0.7, scope="layer")
    return net
