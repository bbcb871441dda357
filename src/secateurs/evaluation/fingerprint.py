"""Checksums of a few images and all labels, which identify a data set."""

import hashlib
import random
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from secateurs.evaluation.batches import length

_SAMPLES = 4
_DIGITS = 16


def fingerprint(loader: Iterable[Any]) -> dict[str, str | None]:
    """Checksums that differ between data sets of the same length.

    At most four images are read, spread evenly from the first to the last, each as a batch of its
    own, so that batch size, workers and shuffling make no difference; and all labels, if the data
    set has them in memory (``targets`` or ``labels``, as torchvision's have, or the second tensor
    of a ``TensorDataset``). Of a list of batches, the first and the last image are read; of a
    loader that can only be iterated, the first image, if it can be iterated again. Python's,
    numpy's and torch's global random states stay as they are.

    Args:
        loader: batches of (images, labels).

    Returns:
        A checksum for each index, and for the labels; None where an image cannot be read, or the
        labels are not in memory.
    """
    dataset = getattr(loader, "dataset", None)
    found: dict[str, str | None] = {}
    for name, read in _readers(loader, dataset):
        with _random_states_kept():
            found[name] = _checksum(read)
    found["labels"] = _checksum(lambda: _labels(dataset))
    return found


def _readers(loader: Iterable[Any], dataset: Any) -> list[tuple[str, Callable[[], Any]]]:
    """The name of each image's index, and a function that reads the image."""
    images = length(loader)
    if images is not None and hasattr(dataset, "__getitem__"):
        last = min(_SAMPLES, images) - 1
        indices = [number * (images - 1) // max(last, 1) for number in range(last + 1)]
        return [
            (str(index), lambda index=index: _sample(loader, dataset[index])) for index in indices
        ]
    if isinstance(loader, Sequence) and loader:
        return [("first", lambda: _cut(loader[0], 0)), ("last", lambda: _cut(loader[-1], -1))]
    if isinstance(dataset, IterableDataset):
        return [("first", lambda: _sample(loader, _first(dataset)))]
    return [("first", lambda: _cut(_first(loader), 0))]


def _sample(loader: Any, item: Any) -> Any:
    """One item of a data set, collated as the loader does, since that may change the images."""
    collate = loader.collate_fn if isinstance(loader, DataLoader) else None
    if collate is None:
        return item
    return collate(item if loader.batch_sampler is None else [item])


def _first(items: Iterable[Any]) -> Any:
    """The first item; an error for an iterator, which would lose it."""
    iterator = iter(items)
    if iterator is items:
        raise TypeError
    return next(iterator)


def _cut(batch: Any, index: int) -> Any:
    """One image of a batch, with its label."""
    return [each[index] for each in batch]


def _labels(dataset: Any) -> Any:
    """All labels of a data set that has them in memory."""
    if isinstance(dataset, Subset):
        indices = torch.as_tensor(list(dataset.indices))
        return torch.as_tensor(_labels(dataset.dataset))[indices]
    if isinstance(dataset, TensorDataset):
        candidates = iter(dataset.tensors[1:2])
    else:
        candidates = (getattr(dataset, name, None) for name in ("targets", "labels"))
    numbers = torch.as_tensor(next(labels for labels in candidates if labels is not None))
    if numbers.is_floating_point() or len(numbers) != len(dataset):
        raise TypeError
    return numbers.long()


def _checksum(read: Callable[[], Any]) -> str | None:
    """The checksum of what ``read`` returns; None if it raises, as the sweep then will itself."""
    digest = hashlib.sha256()
    try:
        _update(digest.update, read())
    except Exception:  # the data set is the caller's code: it may raise anything
        return None
    return digest.hexdigest()[:_DIGITS]


def _update(update: Callable[[bytes], None], value: Any) -> None:
    """Add a value to a checksum; of unknown objects their type, since repr may hold an address."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        update(f"tensor {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping | list | tuple):
        update(f"list {len(value)}\n".encode())
        for each in value.items() if isinstance(value, Mapping) else value:
            _update(update, each)
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        update(f"{type(value).__name__} {value!r}\n".encode())
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # an image of PIL
        update(f"image {value.size} {getattr(value, 'mode', '')}\n".encode() + value.tobytes())
    else:
        update(f"{type(value).__qualname__}\n".encode())


@contextmanager
def _random_states_kept() -> Generator[None]:
    """Seed the global random generators in the block; afterwards restore their states."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)  # torch.manual_seed also seeds the GPUs
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
