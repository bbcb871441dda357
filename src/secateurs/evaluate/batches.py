"""Going on in the middle of a data set."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, SequentialSampler, Subset


def is_sequential(loader: Iterable[Any]) -> bool:
    """Whether the loader reads a data set in order, so that a part of it can be read again."""
    return (
        isinstance(loader, DataLoader)
        and isinstance(loader.sampler, SequentialSampler)
        and loader.batch_size is not None
        and not loader.drop_last
        and hasattr(loader.dataset, "__len__")
    )


def batches(loader: Iterable[Any], start: int, stop: int | None) -> Iterator[tuple[int, Any]]:
    """Read the images from ``start`` to ``stop`` without touching those before.

    Args:
        loader: batches of (images, labels); see `is_sequential` if ``start`` is not 0.
        start: position of the first image in the data set.
        stop: position behind the last one, None for the end.

    Yields:
        The position behind the batch, and the batch.
    """
    if not isinstance(loader, DataLoader) or not is_sequential(loader):
        position = 0
        for batch in loader:
            position += len(batch[1])
            yield position, batch
        return
    total = length(loader) or 0
    end = total if stop is None else min(stop, total)
    size: int = loader.batch_size or 1
    for number, batch in enumerate(_part(loader, start, end, total), start=1):
        yield min(start + number * size, end), batch


def _part(loader: "DataLoader[Any]", start: int, end: int, total: int) -> Iterable[Any]:
    if (start, end) == (0, total):
        return loader
    return DataLoader(
        Subset(loader.dataset, range(start, end)),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )


def length(loader: Iterable[Any]) -> int | None:
    """How many images a loader reads, or None if it cannot tell."""
    try:
        return len(getattr(loader, "dataset", ())) or None
    except TypeError:
        return None
