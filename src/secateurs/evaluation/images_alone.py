"""Loaders of which no label is read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from secateurs.evaluation.batches import is_sequential, loader_of


def without_labels(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader of the same images, each with the label 0.

    Args:
        loader: batches of images, or of pairs of which the first are images.
    """
    if not isinstance(loader, DataLoader) or not is_sequential(loader):
        return _ImagesAlone(loader)
    made = loader_of(loader.dataset, loader)
    made.collate_fn = _Collate(loader.collate_fn)
    return made


@dataclass(frozen=True)
class _Collate:
    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        return _zero_labelled(self.collate(samples))


@dataclass(frozen=True)
class _ImagesAlone:
    loader: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        return map(_zero_labelled, self.loader)


def _zero_labelled(batch: Any) -> Any:
    images = batch[0] if isinstance(batch, tuple | list) and batch else batch
    count = len(images) if isinstance(images, Tensor) else 0
    return images, torch.zeros(count, dtype=torch.long)
