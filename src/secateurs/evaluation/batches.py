"""Read batches, from any index of a data set on."""

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler, Subset

from secateurs._io.text import counted
from secateurs.errors import Advice, FailureError, InvalidArgumentError

# torch's messages when a worker was killed or crashed, and when shared memory or file descriptors
# ran out.
_DIED = re.compile(
    r"DataLoader worker \(pid"
    r"|unable to (open|allocate|resize|write to|mmap).*(shared memory|/torch_)"
    r"|items of ancdata|Too many open files.*DataLoader worker",
    re.DOTALL,
)
_NO_ROOM = re.compile("Bus error|shared memory|No space left|/torch_")


def is_sequential(loader: Iterable[Any]) -> bool:
    """Whether the loader reads a data set in order, so that any part of it can be read alone."""
    return (
        isinstance(loader, DataLoader)
        # A subclass that iterates in its own way may change the order or the images.
        and type(loader).__iter__ is DataLoader.__iter__
        and type(loader.sampler) is SequentialSampler
        and loader.batch_size is not None
        and not loader.drop_last
        and length(loader) == len(loader.sampler)
    )


def read(loader: Iterable[Any], start: int, stop: int | None) -> Iterator[tuple[int, Any]]:
    """Read the images from ``start`` to ``stop``, and none before them.

    Indices are those of the data set, also where a loader leaves images out of its batches.

    Args:
        loader: batches of (images, labels); see `is_sequential` if ``start`` is not 0.
        start: index of the first image in the data set.
        stop: index after the last one, None for the end.

    Yields:
        The index after the batch, and the batch.

    Raises:
        InvalidArgumentError: a batch is not a pair of tensors.
    """
    if not isinstance(loader, DataLoader) or not is_sequential(loader):
        index = 0
        for batch in map(checked, loader):
            index += len(batch[1])
            yield index, batch
        return
    total = length(loader) or 0
    end = total if stop is None else min(stop, total)
    size: int = loader.batch_size or 1
    if (start, end) != (0, total):
        loader = loader_of(Subset(loader.dataset, range(start, end)), loader)
    for number, batch in enumerate(map(checked, loader), start=1):
        yield min(start + number * size, end), batch


# A signal to all processes may have ended the worker, and reaches this process a moment later. Its
# handler interrupts this wait, so that the signal is reported as the cause.
_SIGNAL_SECONDS = 0.3


@contextmanager
def workers_watched() -> Generator[None]:
    """Turn torch's errors about dead DataLoader workers into one line with a remedy.

    torch raises them from a signal handler, so at any moment while batches are read and used.

    Raises:
        FailureError: a worker has died, or the memory that workers share is full.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        text = str(error)
        if _DIED.search(text) is None and not _from_multiprocessing(error):
            raise
        why = "memory that it shares (/dev/shm) is full" if _NO_ROOM.search(text) else "it died"
        with suppress(RuntimeError):  # torch may notice only now that the worker died
            time.sleep(_SIGNAL_SECONDS)
        raise FailureError(
            f"a process that reads images cannot go on ({why}): read without such processes, with ",
            Advice("num_workers=0", "--workers 0"),
        ) from error


def _from_multiprocessing(error: BaseException) -> bool:
    """Whether multiprocessing raised it, as when a worker ends while it sends a batch.

    A data set that reads over a network raises errors of the same types.
    """
    if not isinstance(error, ConnectionError | EOFError):
        return False
    trace, names = error.__traceback__, list[str]()
    while trace is not None:
        names.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return "multiprocessing.connection" in names


def checked(batch: Any) -> tuple[Tensor, Tensor]:
    """The images of a batch, and its labels as int64 of shape (batch,).

    Raises:
        InvalidArgumentError: the batch is not a pair of a tensor and whole numbers.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        kind = type(batch).__name__
        parts = [type(part).__name__ for part in batch] if isinstance(batch, tuple | list) else ""
        raise InvalidArgumentError(
            f"the loader must give batches (images, labels), got {kind} {parts or ''}".rstrip()
            + ": write a collate_fn that returns the two tensors"
        )
    images, labels = batch[0], torch.as_tensor(batch[1])
    if labels.dim() == 0:
        raise InvalidArgumentError(
            "the loader must give batches (images, labels), got one image with its label: write "
            "DataLoader(data, batch_size=64)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.numel() != len(labels):
        raise InvalidArgumentError(
            f"labels must be one whole number an image, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}: for one-hot labels write labels.argmax(1)"
        )
    return images, labels.reshape(-1).long()


def length(loader: Iterable[Any]) -> int | None:
    """How many images a loader's data set has, or None if that is not known."""
    try:
        return len(getattr(loader, "dataset", ())) or None
    except (TypeError, NotImplementedError):
        return None


def why_no_images(loader: Iterable[Any]) -> str:
    """Why there are no images, for an error: none could be read, or the loader gave none."""
    images = length(loader)
    if images and isinstance(loader, DataLoader) and len(loader):
        return f"none of {counted(images, 'image')} could be read"
    return "the loader gave no images"


def loader_of(dataset: Dataset[Any], like: "DataLoader[Any]") -> "DataLoader[Any]":
    """A loader that reads another data set in order, with the settings of ``like``."""
    return DataLoader(
        dataset,
        batch_size=like.batch_size,
        num_workers=like.num_workers,
        collate_fn=like.collate_fn,
        pin_memory=like.pin_memory,
        timeout=like.timeout,
        worker_init_fn=like.worker_init_fn,
        multiprocessing_context=like.multiprocessing_context,
        generator=like.generator,
        prefetch_factor=like.prefetch_factor,
    )


def without_labels(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader of the same images, each with the label 0.

    Args:
        loader: batches of images, or of pairs of which the first are images.
    """
    if not isinstance(loader, DataLoader) or not is_sequential(loader):
        return _ImagesAlone(loader)
    made = loader_of(loader.dataset, loader)
    made.collate_fn = partial(_collated, loader.collate_fn)
    return made


def _collated(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    return _zero_labelled(collate(samples))


@dataclass(frozen=True)
class _ImagesAlone:
    loader: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        return map(_zero_labelled, self.loader)


def _zero_labelled(batch: Any) -> Any:
    images = batch[0] if isinstance(batch, tuple | list) and batch else batch
    count = len(images) if isinstance(images, Tensor) else 0
    return images, torch.zeros(count, dtype=torch.long)
