"""Images with labels in batches, whose order depends on the number of the epoch and a seed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.training.augmentation import AUGMENTATIONS


class TrainingImages(ABC):
    """The images of a training, in memory (`LabelledImages`) or not (`StreamedImages`)."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images at these indices with their labels, in this order, in batches."""

    @abstractmethod
    def part(self, which: Tensor) -> Self:
        """The images at these indices."""

    def first(self) -> Tensor:
        """A batch of the first image alone."""
        return next(self.batches(torch.zeros(1, dtype=torch.int64, device="cpu"), 1))[0]

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Self, Self]:
        """Divide at random; the same seed gives the same division.

        Args:
            fraction: of the images that the second part gets, above 0, below 1.
            seed: of the division.

        Returns:
            The first part, and the second, which has ``round(fraction * count)`` images.

        Raises:
            InvalidArgumentError: a part would be empty.
        """
        first, second = _division(len(self), fraction, seed)
        return self.part(first), self.part(second)


class LabelledImages(TrainingImages):
    """Images and labels in memory, as two tensors.

    Args:
        images: count x channels x height x width, the network's input.
        labels: count; classes from 0.

    Raises:
        InvalidArgumentError: the numbers of images and labels differ, or there are none.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) != len(labels) or not len(images):
            raise InvalidArgumentError(
                f"training needs as many labels as images, and at least one: got {len(images)} "
                f"images and {len(labels)} labels"
            )
        self.images, self.labels = images, labels

    @classmethod
    def read(cls, dataset: Dataset[Any], *, workers: int = 0) -> "LabelledImages":
        """Read a whole data set into memory.

        Args:
            dataset: pairs of an image (channels x height x width) and a class; images of the class
                -1 could not be read and are left out.
            workers: processes that decode.
        """
        loader: DataLoader[Any] = DataLoader(dataset, batch_size=256, num_workers=workers)
        count = len(cast(Sized, dataset))
        images: Tensor | None = None
        labels: list[Tensor] = []
        for read, classes in _decoded(loader):
            readable = classes >= 0
            if images is None:
                images = _allocated(count, read)
            begin = sum(map(len, labels))
            labels.append(classes[readable])
            images[begin : begin + len(labels[-1])] = read[readable]
        if images is None:
            raise InvalidArgumentError("the training data are empty: give at least one image")
        joined = torch.cat(labels)
        return cls(images[: len(joined)], joined)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "LabelledImages":
        """The same images on a device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TrainingImages.batches`."""
        for indices in order.to(self.labels.device).split(batch_size):
            yield self.images[indices], self.labels[indices]

    def part(self, which: Tensor) -> "LabelledImages":
        """As `TrainingImages.part`."""
        return LabelledImages(self.images[which], self.labels[which])


class StreamedImages(TrainingImages):
    """Images that are decoded for each batch.

    Args:
        dataset: pairs of an image (channels x height x width) and a class; images of the class -1
            could not be read and are left out.
        workers: processes that decode.
    """

    def __init__(self, dataset: Dataset[Any], *, workers: int = 0) -> None:
        self.dataset, self.workers = dataset, workers

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def first(self) -> Tensor:
        """As `TrainingImages.first`, without starting processes."""
        return self.dataset[0][0][None]

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TrainingImages.batches`."""
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=[indices.tolist() for indices in order.split(batch_size)],
            num_workers=self.workers,
        )
        for images, labels in _decoded(loader):
            readable = labels >= 0
            yield images[readable], labels[readable]

    def part(self, which: Tensor) -> "StreamedImages":
        """As `TrainingImages.part`."""
        return StreamedImages(Subset(self.dataset, which.tolist()), workers=self.workers)


def epoch(
    images: TrainingImages,
    number: int,
    *,
    batch_size: int,
    seed: int,
    augment: str = "none",
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch, shuffled and augmented.

    The same number and seed always give the same batches, also after an interruption. A batch of
    which no image could be read is replaced by the one before, so that all ranks make equally many
    steps. An image that would be a batch alone is left out of a larger epoch: the statistics of
    batch normalisation need two.

    Args:
        images: to train on.
        number: of the epoch.
        batch_size: images a step, of all ranks together; a multiple of ``ranks``.
        seed: of the training.
        augment: one of `AUGMENTATIONS`.
        rank: the rank, which gets its share of each batch.
        ranks: the number of ranks; images that cannot be shared evenly are left out.

    Yields:
        Images and labels.
    """
    generator = torch.Generator().manual_seed(mixed(seed, number))
    order = torch.randperm(len(images), generator=generator, device="cpu")
    share = order[: _trained_on(images, batch_size, ranks) * ranks][rank::ranks]
    augmenting = torch.Generator().manual_seed(mixed(seed, number, rank + 1))
    before: tuple[Tensor, Tensor] | None = None
    for batch, labels in images.batches(share, batch_size // ranks):
        if len(labels) or before is None:
            before = batch, labels
        batch, labels = before
        yield AUGMENTATIONS[augment](batch, augmenting), labels


def steps_of(images: TrainingImages, batch_size: int, ranks: int = 1) -> int:
    """How many batches `epoch` yields."""
    return -(-_trained_on(images, batch_size, ranks) // (batch_size // ranks))


def _trained_on(images: TrainingImages, batch_size: int, ranks: int) -> int:
    """How many images each rank trains on in an epoch."""
    count, size = len(images) // ranks, batch_size // ranks
    return count - 1 if count > size > 1 and count % size == 1 else count


def mixed(*numbers: int) -> int:
    """Make a seed of several numbers; similar numbers give independent seeds."""
    seed = 0
    for number in numbers:
        seed = (seed ^ (number & (2**63 - 1))) * 6364136223846793005 + 1442695040888963407
        seed = (seed ^ (seed >> 29)) % 2**63
    return seed


def _decoded(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader, on the CPU whatever `torch.set_default_device` says."""
    with torch.device("cpu"):
        batches = iter(loader)
    while True:
        with torch.device("cpu"):  # not while the caller uses the batch
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _allocated(count: int, like: Tensor) -> Tensor:
    try:
        return like.new_empty((count, *like.shape[1:]))
    except RuntimeError as error:  # torch's out of memory on a CPU
        size = count * like[0].numel() * like.element_size() / 2**30
        raise FailureError(
            f"the {count} training images need {size:.1f} GiB of memory, more than there is: use "
            "StreamedImages, fewer images, or smaller ones"
        ) from error


def _division(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    size = round(fraction * count) if 0 < fraction < 1 else 0
    if not 0 < size < count:
        raise InvalidArgumentError(
            f"{fraction!r} of {count} images for validation leaves a part empty: write a fraction "
            "such as 0.1"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator, device="cpu")
    return order[size:].sort().values, order[:size].sort().values
