"""Networks that read pixels, so that one attack fits networks of different preprocessing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs._io.text import counted
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.outputs import logits_of
from secateurs.provenance import weights_sha256
from secateurs.zoo import LoadedModel

_SAME = 0.5  # two networks have the same classes if this share of the names is equal


class FromPixels(nn.Module):
    """A network with its own normalisation, from pixels in [0, 1] to logits.

    Args:
        model: the network, which reads normalised images.
        mean: of each channel, subtracted.
        std: of each channel, divided by.
        size: side in pixels that the images are resized to (bilinear); None leaves them as they
            are.

    Example:
        >>> net = FromPixels(nn.Flatten(), mean=(0.5,), std=(0.5,))
        >>> net(torch.ones(1, 1, 1, 2))
        tensor([[1., 1.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of pixels (B, C, H, W)."""
        if self.size is not None and pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(
                pixels, size=(self.size, self.size), mode="bilinear", align_corners=False
            )
        images = (pixels - self.mean) / self.std
        # Convolutions are faster in this memory format, on CPUs and on GPUs.
        return logits_of(self.model(images.contiguous(memory_format=torch.channels_last)))

    @property
    def achieved(self) -> float:
        """The ratio of prunable weights that the current draw prunes; 0.0 without pruning."""
        masks = getattr(self.model, "masks", None)
        return 0.0 if masks is None else float(masks.sparsity)


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network as the benchmark uses it.

    Attributes:
        name: its name in rows and tables.
        inner: the network itself, which reads normalised images; surrogates are made from it.
        dense: the same network, reading pixels.
        channels: 1 for grey images, 3 for RGB.
        img_size: the side of the images of its own preprocessing.
        classes: a name for each class, or None.
    """

    name: str
    inner: nn.Module
    dense: FromPixels
    channels: int
    img_size: int
    classes: Sequence[str] | None = None

    @cached_property
    def sha256(self) -> str:
        """The hash of the weights."""
        return weights_sha256(self.inner)

    @property
    def preprocess(self) -> str:
        """The preprocessing of the pixels, in one line."""
        dense = self.dense
        mean, std = (
            "/".join(f"{value:.4g}" for value in values.flatten().tolist())
            for values in (dense.mean, dense.std)
        )
        resized = f"resized to {dense.size}, " if dense.size else ""
        return f"{resized}mean {mean}, std {std}"

    @torch.no_grad()
    def class_count(self, size: int) -> int:
        """The number of classes, found with a blank image of ``size`` pixels."""
        blank = torch.zeros(1, self.channels, size, size, device=self.dense.mean.device)
        return self.dense(blank).shape[1]

    def member(self, surrogate: nn.Module) -> FromPixels:
        """A surrogate of this network, reading the same pixels as the network."""
        dense = self.dense
        mean, std = dense.mean.flatten().tolist(), dense.std.flatten().tolist()
        return FromPixels(surrogate, mean=mean, std=std, size=dense.size).to(dense.mean.device)


def as_network(
    loaded: LoadedModel, *, name: str | None = None, device: str | torch.device = "cpu"
) -> Network:
    """Prepare a network of the zoo for attacks: on the device, in eval mode, weights frozen.

    Args:
        loaded: what `secateurs.zoo.load_model` returned; its module is changed in place.
        name: default ``loaded.name``.
        device: the device that it is moved to.
    """
    inner = loaded.model.eval().requires_grad_(False)
    inner.to(device)
    inner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    pre = loaded.preprocess
    return Network(
        name=name or loaded.name,
        inner=inner,
        dense=FromPixels(inner, mean=pre.mean, std=pre.std).to(device).eval(),
        channels=len(pre.mean),
        img_size=pre.img_size,
        classes=loaded.classes,
    )


def shared_size(networks: Sequence[Network], default: int = 224) -> int:
    """The image size of all networks; ``default`` where they differ."""
    sizes = {network.img_size for network in networks}
    return sizes.pop() if len(sizes) == 1 else default


def fit_size(networks: Sequence[Network], size: int) -> None:
    """Let every network read images of one size; those that cannot, resize the images first.

    A network that accepts the size reads the images unchanged, as is usual in this field. One that
    accepts only its own size, such as a vision transformer, resizes them bilinearly; gradients flow
    through the resize.

    Raises:
        InvalidArgumentError: networks differ in their channels or classes, or one accepts neither
            this size nor its own.
    """
    first = networks[0]
    for other in networks[1:]:
        if other.channels != first.channels:
            raise InvalidArgumentError(
                f"{first.name} reads {counted(first.channels, 'channel')} and {other.name} "
                f"{other.channels}: name networks that read the same kind of images"
            )
    counts = {network.name: _accept(network, size) for network in networks}
    for other in networks[1:]:
        if counts[other.name] != counts[first.name]:
            raise InvalidArgumentError(
                f"{first.name} has {counts[first.name]} classes and {other.name} has "
                f"{counts[other.name]}: name networks that were trained on the same classes"
            )
        _check_names(first, other)


def _accept(network: Network, size: int) -> int:
    """Try the size, then a resize to the network's own; returns the number of classes."""
    failure: Exception = RuntimeError()
    for resized in (None, network.img_size):
        network.dense.size = resized
        try:
            return network.class_count(size)
        except InvalidArgumentError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            failure = error
    reason = (str(failure).splitlines() or [type(failure).__name__])[0]
    raise InvalidArgumentError(
        f"{network.name} takes images neither of {size} nor of {network.img_size} pixels "
        f"({reason}): write another ",
        Argument("img_size"),
    ) from failure


def _check_names(first: Network, other: Network) -> None:
    """Refuse networks of other classes, or of another order; up to half of the names may differ."""
    if first.classes is None or other.classes is None:
        return
    ours, theirs = [_plain(name) for name in first.classes], [_plain(n) for n in other.classes]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    if same == len(ours) or (set(ours) != set(theirs) and same >= _SAME * len(ours)):
        return
    index = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    raise InvalidArgumentError(
        f"{first.name} and {other.name} disagree on the classes (class {index} is "
        f"{first.classes[index]!r} in one and {other.classes[index]!r} in the other): name networks"
        " that were trained on the same classes in the same order"
    )


def _plain(name: str) -> str:
    """The first of several names, such as ``tench, Tinca tinca``, in one spelling."""
    return name.split(",")[0].strip().lower().replace("_", " ")
