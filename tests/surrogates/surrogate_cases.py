"""Networks and inputs that the tests of surrogates share."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import secateurs as sc
from secateurs.masks.mask import Masks


class Blocks(nn.Module):
    """A small network with BatchNorm; one of its blocks may be checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=2))
        self.head = nn.Linear(6, 5)
        self.reentrant: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.reentrant is None:
            x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


def blocks() -> Blocks:
    """The network with weights and running statistics, in eval mode."""
    torch.manual_seed(1)
    model = Blocks()
    model(torch.randn(16, 3, 8, 8))
    return model.eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def oracle(model: nn.Module, masks: Masks, prune_type: str = "global") -> nn.Module:
    """A copy of the model under these masks, by the functions that surrogates do not use."""
    return sc.apply_masks(copy.deepcopy(model), masks, prune_type)


def input_gradient(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(call(x).square().sum(), x)[0]
