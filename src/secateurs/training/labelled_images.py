"""Images with labels in batches, whose order depends on the number of the epoch and a seed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from secateurs.errors import Argument, FailureError, InvalidArgumentError
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

    def split(self, fraction: float) -> tuple[Self, Self]:
        """Divide at random, the same images always in the same way.

        Args:
            fraction: of the images that the second part gets, above 0, below 1.

        Returns:
            The first part, and the second, which has ``round(fraction * count)`` images.

        Raises:
            InvalidArgumentError: a part would be empty.
        """
        count = len(self)
        size = round(fraction * count) if 0 < fraction < 1 else 0
        if not 0 < size < count:
            usual = 0.1
            few = round(usual * count) == 0
            remedy = "give more images" if few else Argument("validation", usual)
            raise InvalidArgumentError(
                Argument("validation", fraction),
                f" of {count} training images leaves a part empty: {'' if few else 'write '}",
                remedy,
            )
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(count, generator=generator, device="cpu")
        return self.part(order[size:].sort().values), self.part(order[:size].sort().values)


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
        stream = StreamedImages(dataset, workers=workers)
        count, begin = len(stream), 0
        if not count:
            raise InvalidArgumentError("the training data are empty: give at least one image")
        on_cpu = torch.device("cpu")
        images = torch.empty(0, device=on_cpu)
        labels = torch.empty(count, dtype=torch.int64, device=on_cpu)
        for read, classes in stream.batches(torch.arange(count, device=on_cpu), 256):
            if not begin:
                images = _allocated(count, read)
            end = begin + len(classes)
            images[begin:end], labels[begin:end] = read, classes
            begin = end
        return cls(images[:begin], labels[:begin])

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
        # On the CPU whatever `torch.set_default_device` says, but not while the caller has a batch.
        with torch.device("cpu"):
            batches = iter(loader)
        while True:
            with torch.device("cpu"):
                batch = next(batches, None)
            if batch is None:
                return
            images, labels = batch
            yield images[labels >= 0], labels[labels >= 0]

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

    The same number and seed always give the same batches, also after an interruption. The
    statistics of batch normalisation need two images: one that would be a batch alone is left out
    of a larger epoch, and a batch of which fewer could be read is replaced by the one before, or
    the next where it is the first, so that all ranks make equally many steps.

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

    Raises:
        FailureError: there is no batch to replace the others by.
    """
    generator = torch.Generator().manual_seed(mixed(seed, number))
    order = torch.randperm(len(images), generator=generator, device="cpu")
    share = order[: _trained_on(images, batch_size, ranks) * ranks][rank::ranks]
    augmenting = torch.Generator().manual_seed(mixed(seed, number, rank + 1))
    size = batch_size // ranks
    enough = min(2, size, len(share))
    usable: tuple[Tensor, Tensor] | None = None
    due = 0  # batches that were read, and neither yielded nor replaced yet
    for read in images.batches(share, size):
        usable = read if len(read[1]) >= enough else usable
        due += 1
        while due and usable is not None:
            due -= 1
            yield AUGMENTATIONS[augment](usable[0], augmenting), usable[1]
    if due:
        raise unreadable()


def steps_of(images: TrainingImages, batch_size: int, ranks: int = 1) -> int:
    """How many batches `epoch` yields."""
    return -(-_trained_on(images, batch_size, ranks) // (batch_size // ranks))


def unreadable() -> FailureError:
    """The error for images of which too few can be read to train on."""
    return FailureError(
        "too few of the training images can be read to make a batch of them: give others, or "
        "larger batches"
    )


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


def _allocated(count: int, like: Tensor) -> Tensor:
    try:
        return like.new_empty((count, *like.shape[1:]))
    except RuntimeError as error:  # torch's out of memory on a CPU
        size = count * math.prod(like.shape[1:]) * like.element_size() / 2**30
        raise FailureError(
            f"the {count} training images need {size:.1f} GiB of memory, more than there is: use "
            "StreamedImages, fewer images, or smaller ones"
        ) from error
