"""Four over-parameterised networks of different families for the digits, for transfer attacks.

Each is trained on the training split of `secateurs.zoo.digits_images` on first use, and kept in the
user's cache folder.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateurs.zoo.digits import DigitsNetwork, Recipe, convolution, made


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Add the body's output to ``x``."""
        return x + self.body(x)


class Patches(nn.Module):
    """Embed 16 overlapping patches of 4 x 4 pixels of 8 x 8 images, and add a learned position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 4, stride=2, padding=1)
        self.place = nn.Parameter(torch.randn(1, 16, width) * 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Batch x 16 x width."""
        return self.embed(images).flatten(2).transpose(1, 2) + self.place


class Attention(nn.Module):
    """Self-attention over patches, as a module of one input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.out(mixed.transpose(1, 2).flatten(2))


class MeanOfPatches(nn.Module):
    """The mean embedding."""

    def forward(self, x: Tensor) -> Tensor:
        """Batch x width."""
        return x.mean(1)


def digits_plain(pretrained: bool = True) -> DigitsNetwork:
    """Convolutions without normalisation and two linear layers, as VGG; 194,122 parameters."""
    return made(Recipe("digits-plain-1", _plain, epochs=8, rate=3e-3), pretrained)


def digits_wide(pretrained: bool = True) -> DigitsNetwork:
    """Three wide convolutions with BatchNorm, then the mean over pixels; 223,626 parameters."""
    return made(Recipe("digits-wide-1", _wide, epochs=6, rate=5e-3), pretrained)


def digits_residual(pretrained: bool = True) -> DigitsNetwork:
    """Three residual blocks of two convolutions with BatchNorm, as ResNet; 223,306 parameters."""
    return made(Recipe("digits-residual-1", _residual, epochs=5, rate=5e-3), pretrained)


def digits_patches(pretrained: bool = True) -> DigitsNetwork:
    """Two transformer blocks over patches of 4 x 4 pixels; 102,858 parameters."""
    return made(Recipe("digits-patches-1", _patches, epochs=12, rate=2e-3), pretrained)


FAMILY: dict[str, Callable[..., DigitsNetwork]] = {
    "digits-plain": digits_plain,
    "digits-wide": digits_wide,
    "digits-residual": digits_residual,
    "digits-patches": digits_patches,
}
"""The networks by their names for `secateurs.zoo.load_model`."""


def _plain() -> DigitsNetwork:
    layers: dict[str, nn.Module] = {}
    for index, inputs in enumerate((1, 64, 64), start=1):
        layers[f"conv{index}"] = nn.Conv2d(inputs, 64, 3, padding=1)
        layers[f"relu{index}"] = nn.ReLU()
        if index != 2:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(64 * 2 * 2, 448)
    layers["relu4"] = nn.ReLU()
    layers["linear2"] = nn.Linear(448, 10)
    return DigitsNetwork(layers)


def _wide() -> DigitsNetwork:
    layers: dict[str, nn.Module] = {}
    for index, (inputs, outputs) in enumerate(((1, 128), (128, 128), (128, 64)), start=1):
        layers |= convolution(index, inputs, outputs)
        if index < 3:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(64, 10)
    return DigitsNetwork(layers)


def _residual() -> DigitsNetwork:
    width = 64
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(1, width, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(width),
    }
    for index in range(1, 4):
        if index < 3:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        inside: list[nn.Module] = []
        for _ in range(2):
            convolved = nn.Conv2d(width, width, 3, padding=1, bias=False)
            inside += [nn.ReLU(), convolved, nn.BatchNorm2d(width)]
        layers[f"block{index}"] = Residual(nn.Sequential(*inside))
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(width, 10)
    return DigitsNetwork(layers)


def _patches() -> DigitsNetwork:
    width = 64
    layers: dict[str, nn.Module] = {"patches": Patches(width)}
    for index in range(1, 3):
        layers[f"attention{index}"] = Residual(
            nn.Sequential(nn.LayerNorm(width), Attention(width, heads=4))
        )
        layers[f"mlp{index}"] = Residual(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 4 * width),
                nn.GELU(),
                nn.Linear(4 * width, width),
            )
        )
    layers["norm"] = nn.LayerNorm(width)
    layers["mean"] = MeanOfPatches()
    layers["linear"] = nn.Linear(width, 10)
    return DigitsNetwork(layers)
