"""The images that are attacked: whole, in 8 bits, and classified correctly by every network."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from secateurs._io.text import counted, printable
from secateurs._validation import check_count, check_seed
from secateurs.errors import InvalidArgumentError
from secateurs.transfer.network import Network
from secateurs.zoo import SKIPPED, LoadedData, Preprocess

_CHUNK = 32  # images that are read and classified at a time
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pixel_preprocess(size: int, channels: int, interpolation: str = "bicubic") -> Preprocess:
    """Squash an image to a square of ``size`` pixels and keep it in [0, 1], not normalised.

    The resize is PIL's on 8-bit pixels, so every value is a multiple of 1/255; with ``bicubic``
    these are the pixels that TransferAttack's evaluation reads.

    Args:
        size: side of the result.
        channels: 1 (grey) or 3 (RGB).
        interpolation: ``bicubic`` or ``bilinear``.
    """
    if interpolation not in _FILTERS:
        raise InvalidArgumentError(
            f"interpolation must be {' or '.join(_FILTERS)}; got {interpolation!r}"
        )

    def transform(image: Image.Image) -> Tensor:
        if image.size != (size, size):
            image = image.resize((size, size), _FILTERS[interpolation])
        levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return levels.view(size, size, channels).permute(2, 0, 1).float() / 255

    return Preprocess(
        img_size=size,
        crop_pct=1.0,
        interpolation=interpolation,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        crop_mode="squash",
        source="the benchmark",
        transform=transform,
    )


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images to attack; their order does not depend on how many there are.

    Attributes:
        levels: 8-bit pixels, N x C x H x W.
        labels: the true classes, N.
        targets: the target classes of targeted attacks, N.
        names: file names for saved images, each once.
        seen: how many images were classified to find these.
        drawn: whether the target classes were drawn, because the data has none.
        accuracy: how many of the ``seen`` images each network classified correctly, by its name.
    """

    levels: Tensor
    labels: Tensor
    targets: Tensor
    names: Sequence[str]
    seen: int
    drawn: bool
    accuracy: dict[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Images ``start`` to ``stop`` in [0, 1]."""
        pixels = self.levels[start:stop].to(device).float() / 255
        return pixels.contiguous(memory_format=torch.channels_last)

    def part(self, start: int, stop: int) -> "ImageSet":
        """Images ``start`` to ``stop`` as a set."""
        own = ("levels", "labels", "targets", "names")
        return replace(self, **{name: getattr(self, name)[start:stop] for name in own})


def choose_images(
    data: LoadedData,
    networks: Sequence[Network],
    *,
    limit: int | None = None,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> ImageSet:
    """Find images that every network classifies correctly.

    Images are classified in an order drawn from ``seed``, until ``limit`` are found, so the images
    of a small run are the first ones of a larger run. If the data has no target classes, they are
    drawn: for each image any class but the true one.

    Args:
        data: images read with `pixel_preprocess`.
        networks: all surrogates and all targets.
        limit: how many images to find; None finds all.
        seed: seed of the order and of drawn target classes.
        advance: called with the number of images that were classified since the last call.

    Raises:
        InvalidArgumentError: a target class is the true class, labels are not classes of the
            networks, or no image is classified correctly by all.
    """
    seed = check_seed("seed", seed)
    limit = None if limit is None else check_count("limit", limit)
    total = len(data.dataset)
    order = torch.randperm(total, generator=_generator(seed), device="cpu").tolist()
    labels = torch.tensor([item.label for item in data.dataset.items], device="cpu")
    classes = networks[0].class_count(data.dataset.preprocess.img_size)
    _check_labels(labels, classes, networks[0])
    targets = _targets(data, labels, classes, seed)
    levels: list[Tensor] = []
    chosen: list[int] = []
    accuracy = dict.fromkeys((network.name for network in networks), 0)
    seen = 0
    for start in range(0, total, _CHUNK):
        read = {index: data.dataset[index] for index in order[start : start + _CHUNK]}
        indices = [index for index, (_, label) in read.items() if label != SKIPPED]
        if not indices:
            continue
        pixels = torch.stack([read[index][0] for index in indices])
        good = torch.ones(len(indices), dtype=torch.bool, device="cpu")
        for network in networks:
            correct = predict(network, pixels) == labels[indices]
            accuracy[network.name] += int(correct.sum())
            good &= correct
        seen += len(indices)
        if advance is not None:
            advance(len(indices))
        found = good.nonzero().flatten().tolist()
        levels.append((pixels[found] * 255).round().to(torch.uint8))
        chosen += [indices[i] for i in found]
        if limit is not None and len(chosen) >= limit:
            break
    if not chosen:
        raise _none_found(data, accuracy, seen)
    chosen = chosen[:limit]
    return ImageSet(
        levels=torch.cat(levels)[: len(chosen)],
        labels=labels[chosen],
        targets=targets[chosen],
        names=_file_names(data, chosen),
        seen=seen,
        drawn=data.targets is None,
        accuracy=accuracy,
    )


@torch.no_grad()
def predict(network: Network, pixels: Tensor) -> Tensor:
    """The classes that the dense network predicts, on the CPU."""
    device = network.dense.mean.device
    return network.dense(pixels.to(device)).argmax(1).cpu()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check_labels(labels: Tensor, classes: int, network: Network) -> None:
    if len(labels) and int(labels.max()) >= classes:
        raise InvalidArgumentError(
            f"the images have labels up to {int(labels.max())}, but {network.name} has "
            f"{counted(classes, 'class', 'classes')}: name networks that were trained for these "
            "images"
        )


def _targets(data: LoadedData, labels: Tensor, classes: int, seed: int) -> Tensor:
    if data.targets is None:
        if classes < 2:
            raise InvalidArgumentError("one class leaves nothing to aim at: name other networks")
        source = _generator(seed + 1)
        shift = torch.randint(1, classes, (len(labels),), generator=source, device="cpu")
        return (labels + shift) % classes
    targets = torch.tensor(list(data.targets), device="cpu")
    same = (targets == labels).nonzero().flatten().tolist()
    if same:
        raise InvalidArgumentError(
            f"the target class of {data.dataset.name_of(same[0])} is its true class: mend "
            "TargetClass in images.csv"
        )
    return targets


def _none_found(data: LoadedData, accuracy: dict[str, int], seen: int) -> InvalidArgumentError:
    if not seen:
        return InvalidArgumentError(
            f"none of {counted(len(data.dataset), 'image')} of {data.name} could be read: mend "
            "them, or name other images"
        )
    each = ", ".join(f"{name} {count}" for name, count in accuracy.items())
    return InvalidArgumentError(
        f"none of {counted(seen, 'image')} of {data.name} is classified correctly by every network "
        f"(correct: {each}): check the weights, or leave out the network that fails"
    )


def _file_names(data: LoadedData, indices: Sequence[int]) -> list[str]:
    """The name of each image with ``.png``; with its index in front where two have one name."""
    sources = [item.source for item in data.dataset.items]
    stems = [
        _plain(source.stem) if isinstance(source, Path) else f"{source[1]:05d}"
        for source in sources
    ]
    times = Counter(stems)
    return [
        f"{index:06d}_{stems[index]}.png" if times[stems[index]] > 1 else f"{stems[index]}.png"
        for index in indices
    ]


def _plain(stem: str) -> str:
    """A name that is valid UTF-8 and that a spreadsheet does not run: labels.csv holds it."""
    text = printable(stem)
    text = text if text == stem else text.replace("\\", "%")
    return f"_{text}" if text.startswith(("=", "+", "-", "@")) else text
