"""Networks of four families for CIFAR-10, each with far more weights than its accuracy needs.

Every function builds one network that secateurs loads by name, run from this folder:
``secateurs sweep --arch cifar10_networks:resnet --weights resnet.safetensors --data FOLDER``.
``train_cifar10.py`` trains them.

What training costs on a CPU is not weights but multiplications, and a convolution's weights are
multiplied once for each place of the image. So the first layer halves the image (``stride=2``), and
most weights lie where it is 4 x 4 or 2 x 2 places small. With ``stride=1`` and ``width=2`` the
networks have the usual sizes; a GPU trains those, and they are called ``wide_resnet`` and so on.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def resnet(*, width: float = 1, stride: int = 2) -> nn.Module:
    """Residual blocks of two 3 x 3 convolutions with BatchNorm, as in ResNet-18."""
    channels = _scaled((32, 64, 128, 256), width)
    layers: list[nn.Module] = [_conv(3, channels[0], 3, stride), nn.ReLU()]
    before = channels[0]
    for stage, (after, blocks) in enumerate(zip(channels, (1, 1, 1, 2), strict=True)):
        for block in range(blocks):
            layers.append(Residual(before, after, 2 if stage and not block else 1))
            before = after
    return _described(nn.Sequential(*layers, *_head(before)))


def vgg(*, width: float = 1, stride: int = 2) -> nn.Module:
    """Convolutions with BatchNorm one after the other, and a wide fully connected head."""
    first, second, third, fourth = _scaled((32, 64, 128, 256), width)
    hidden = 4 * fourth
    return _described(
        nn.Sequential(
            *(_conv(3, first, 3, stride), nn.ReLU()),
            *(_conv(first, second, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(_conv(second, third, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(_conv(third, fourth, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(4 * fourth, hidden), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(hidden, hidden // 2), nn.ReLU(), nn.Dropout(0.3)),
            nn.Linear(hidden // 2, len(CLASSES)),
        )
    )


def mobilenet(*, width: float = 1, stride: int = 2) -> nn.Module:
    """Inverted residuals, as in MobileNetV2: widen, filter each channel, narrow."""
    channels = _scaled((16, 40, 96, 192), width)
    layers: list[nn.Module] = [_conv(3, channels[0], 3, stride), nn.ReLU()]
    before = channels[0]
    for after, blocks, step in zip(channels, (1, 2, 2, 2), (1, 2, 2, 1), strict=True):
        for block in range(blocks):
            layers.append(InvertedResidual(before, after, 1 if block else step))
            before = after
    wide = 4 * before
    layers += [_conv(before, wide, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, len(CLASSES))]
    return _described(nn.Sequential(*layers))


def convnext(*, width: float = 1, stride: int = 2) -> nn.Module:
    """Patches, depthwise filters, LayerNorm and perceptrons, as in ConvNeXt: no BatchNorm."""
    channels = _scaled((32, 96, 192), width)
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], stride, stride)]
    before = channels[0]
    for after, blocks, kernel in zip(channels, (1, 1, 2), (5, 5, 3), strict=True):
        if after != before:
            layers += [ChannelNorm(before), nn.Conv2d(before, after, 2, 2)]
        layers += [ConvNextBlock(after, kernel) for _ in range(blocks)]
        before = after
    layers += [ChannelNorm(before), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(before, 4 * before), nn.SiLU(), nn.Linear(4 * before, len(CLASSES))]
    return _described(nn.Sequential(*layers))


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a short cut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _conv(before, after, 3, stride), nn.ReLU(), _conv(after, after, 3)
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else _conv(before, after, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Same number of places, or a quarter of them with stride 2."""
        return self.relu(self.branch(x) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """Four times as many channels, a 3 x 3 filter on each, and back."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        wide = 4 * before
        self.branch = nn.Sequential(
            *(_conv(before, wide, 1), nn.ReLU()),
            *(_conv(wide, wide, 3, stride, groups=wide), nn.ReLU()),
            _conv(wide, after, 1),
        )
        self.residual = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Same number of places, or a quarter of them with stride 2."""
        return x + self.branch(x) if self.residual else self.branch(x)


class ConvNextBlock(nn.Module):
    """A filter on each channel, then a two-layer perceptron at each place.

    SiLU stands in for GELU, which it resembles: on a CPU GELU takes four times as long.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.SiLU(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return x + self.perceptron(self.filter(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``: batch x channels x height x width."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution that keeps the size (but for its stride), and BatchNorm."""
    convolution = nn.Conv2d(
        before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def _head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES))


def _scaled(channels: tuple[int, ...], width: float) -> tuple[int, ...]:
    return tuple(max(8, round(number * width)) for number in channels)


def _described(model: nn.Module) -> nn.Module:
    """Tell secateurs what the answers mean and how images come in."""
    model.num_classes = len(CLASSES)
    model.classes = CLASSES
    model.preprocess = {"img_size": 32, "crop_pct": 1.0, "mean": MEAN, "std": STD}
    return model


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet,
    "vgg": vgg,
    "mobilenet": mobilenet,
    "convnext": convnext,
}
wide_resnet = partial(resnet, width=2, stride=1)
wide_vgg = partial(vgg, width=2, stride=1)
wide_mobilenet = partial(mobilenet, width=2, stride=1)
wide_convnext = partial(convnext, width=2, stride=1)
