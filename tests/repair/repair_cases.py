"""Networks and images for the tests of repairs."""

import torch
from torch import Tensor, nn

from secateurs import global_prune


def images(count: int = 40, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Module:
    """Convolutions of several kinds, BatchNorm with lived-in statistics, a linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, groups=2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    model(images(64, seed=2))
    return model.eval()


def pruned_network(p_prune: float = 0.5) -> nn.Module:
    return global_prune(network(), p_prune)
