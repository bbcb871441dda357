"""A data set over a list of image files or arrays, in a fixed order, and parts of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from secateurs._io.text import one_line, printable
from secateurs.errors import Argument, FailureError
from secateurs.zoo.decoding import check_shape, read_image, to_mode
from secateurs.zoo.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

SKIPPED = -1
"""The label of an image that could not be read and was skipped."""

_GO_ON = Argument("skip_corrupt", True)


class CorruptImageError(FailureError):
    """An image that cannot be read or preprocessed; the message names it.

    A DataLoader raises a worker's error again, with the worker's traceback as its text. Only the
    last line of that, which is the original message, is kept.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().rsplit("\n", 1)[-1]
        said = last.removeprefix(f"{type(self).__module__}.{type(self).__name__}: ")
        before, option, after = said.partition(str(_GO_ON))
        super().__init__(before, _GO_ON if option else "", after)

    def __reduce__(self) -> tuple[type["CorruptImageError"], tuple[str]]:
        return type(self), (str(self),)


@dataclass(frozen=True)
class Item:
    """One image and its class.

    Attributes:
        source: a file, or a pair (data set, index) whose entry begins with a PIL image.
        label: index of the model's logit.
    """

    source: Path | tuple[Any, int]
    label: int


@dataclass(frozen=True)
class Listing:
    """The images of a data set.

    Attributes:
        items: the images, in a fixed order.
        split: the name of the split.
        classes: the names of the classes in sorted order, or None if the data has none.
        targets: for each image the class that a targeted attack aims at, or None.
    """

    items: list[Item]
    split: str
    classes: list[str] | None
    targets: list[int] | None = None


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images in a fixed order, each decoded when it is indexed.

    Works with any DataLoader, with workers, and with ``torch.utils.data.Subset``. An unreadable
    image raises `CorruptImageError`. With ``skip_corrupt`` it is zeros with the label `SKIPPED`
    instead, so that batches keep their shape and indices do not change. Drop these images with
    `drop_skipped`, which also counts them.

    Args:
        items: the images, in order.
        preprocess: from an image to a tensor C x H x W.
        skip_corrupt: mark unreadable images instead of raising.
    """

    def __init__(
        self, items: Sequence[Item], preprocess: Preprocess, *, skip_corrupt: bool = False
    ) -> None:
        self.items = list(items)
        self.preprocess = preprocess
        self.skip_corrupt = skip_corrupt

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self.items[index]
        try:
            image = _open(item.source, self.preprocess)
        except Exception as error:  # any error of PIL for a damaged file, or of another data set
            if self.skip_corrupt:
                return torch.zeros_like(self.preprocess.blank()), SKIPPED
            raise CorruptImageError(
                f"cannot read the image {self.name_of(index)} ({printable(one_line(error))}): mend "
                f"or remove it, or go on without it: {_GO_ON}"
            ) from error
        try:
            return self.preprocess(image), item.label
        except Exception as error:  # the model's own transform, or the caller's
            raise CorruptImageError(
                f"cannot bring the image {self.name_of(index)} of {image.width} x {image.height} "
                f"pixels into the model's form ({type(error).__name__}: "
                f"{printable(one_line(error))}): remove it, or mend the preprocessing"
            ) from error

    def name_of(self, index: int) -> str:
        """The file of image ``index``, or its index in a data set without files."""
        source = self.items[index].source
        return printable(str(source)) if isinstance(source, Path) else f"number {source[1]}"


def drop_skipped(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Remove the images that `ImageDataset` could not read from a batch.

    Args:
        images: N x C x H x W.
        labels: N, `SKIPPED` where an image was unreadable.

    Returns:
        The readable images, their labels, and how many were skipped.

    Example:
        >>> batch = torch.zeros(3, 1, 8, 8), torch.tensor([4, -1, 2])
        >>> images, labels, skipped = drop_skipped(*batch)
        >>> labels.tolist(), skipped
        ([4, 2], 1)
    """
    keep = labels != SKIPPED
    skipped = int(labels.numel() - keep.sum().item())
    return (images[keep], labels[keep], skipped) if skipped else (images, labels, 0)


def subset(labels: Sequence[int], limit: int) -> list[int]:
    """Choose some images that represent all of them, the same at every call.

    The images are sorted by class, in a class in the order of the data, and divided into ``limit``
    groups of about equal size. The first image of each group is taken. So each class is represented
    in proportion to its size, whatever the order of the data is. Without classes (all labels are
    the same) a random image of each group is taken, with a fixed seed: if the classes alternate in
    the data, every n-th image would be of a few classes alone.

    Args:
        labels: the class of each image.
        limit: how many images are wanted.

    Returns:
        The indices of the images, rising; all of them, if there are not more than that.

    Example:
        >>> subset([0, 1, 0, 1, 0, 1, 0, 1], 4)
        [0, 1, 4, 5]
    """
    count = len(labels)
    if limit >= count:
        return list(range(count))
    order = sorted(range(count), key=labels.__getitem__)
    firsts = [part * count // limit for part in range(limit)]
    if labels[order[0]] != labels[order[-1]]:
        return sorted(order[first] for first in firsts)
    source = random.Random(count)
    stops = [*firsts[1:], count]
    return [source.randrange(a, b) for a, b in zip(firsts, stops, strict=True)]


def halves(labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """Divide images into two halves, each of which represents all, the same at every call.

    Args:
        labels: as for `subset`.

    Returns:
        The indices of either half, rising; of an odd number the first half has one more.
    """
    first = subset(labels, (len(labels) + 1) // 2)
    taken = set(first)
    return first, [index for index in range(len(labels)) if index not in taken]


def _open(source: Path | tuple[Any, int], preprocess: Preprocess) -> "Image.Image":
    if isinstance(source, Path):
        image = read_image(source, preprocess.image_mode)
    else:
        images, index = source
        image = to_mode(images[index][0], preprocess.image_mode)
    if preprocess.crop_mode == "center":  # the other modes limit the longer side
        check_shape(image, preprocess.img_size / preprocess.crop_pct)
    return image
