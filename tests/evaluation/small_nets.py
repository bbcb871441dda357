"""A small classifier and images whose labels it mostly gets right, for the tests of the sweep."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from secateurs.results import Row

IMAGES = 46
SAMPLES = [0, 15, 30, 45]
"""What is read of them to know them again."""
MEASURED = {"loss", "infer_samples_per_sec", "duration", "batch_size"}


class Net(nn.Module):
    """Convolutions, a norm and dropout, whose modes matter, and a linear layer."""

    def __init__(self, classes: int = 7):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, bias=False)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 16, classes)
        self.passes = 0

    def forward(self, images: Tensor) -> Any:
        self.passes += 1
        hidden = self.norm(self.first(images)).relu()
        return self.head(self.drop(self.second(hidden).relu().flatten(1)))


class Images(Dataset[tuple[Tensor, int]]):
    """Random images that note each read and can interrupt whoever reads."""

    def __init__(self, count: int = IMAGES, classes: int = 7, before: Any = None):
        generator = torch.Generator().manual_seed(5)
        self.pixels = torch.randn(count, 1, 8, 8, generator=generator)
        guesses = network(classes).eval()(self.pixels).argmax(1)
        wrong = torch.rand(count, generator=generator) < 0.25
        self.labels = torch.where(wrong, (guesses + 1) % classes, guesses)
        self.before: Callable[[int], None] | None = before
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.before is not None:
            self.before(index)
        self.reads.append(index)
        return self.pixels[index], int(self.labels[index])


GRID: dict[str, Any] = {"p_prune": [0, 0.5, 0.9], "p_bern": [1, 0.5], "draws": 2}
VARIANTS = 1 + 2 + 2 * 2
STEPS = VARIANTS * 6


class Stop(Exception):
    """Stands for anything that ends a sweep."""


class Stopping(Net):
    """Breaks off in its forward pass number ``after``."""

    def __init__(self, after: int | None = None, error: type[BaseException] = Stop):
        super().__init__()
        self.load_state_dict(network().state_dict())
        self.after, self.error = after, error

    def forward(self, images: Tensor) -> Any:
        if self.passes == self.after:
            raise self.error
        return super().forward(images)


def network(classes: int = 7, seed: int = 3) -> Net:
    """The same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(classes)


def loader(images: Dataset[Any] | None = None, batch_size: int = 8, **options: Any) -> Any:
    """Read in order."""
    return DataLoader(Images() if images is None else images, batch_size=batch_size, **options)


def outcome(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """All that must be equal between two sweeps of one configuration, exactly."""
    names = [field.name for field in fields(Row) if field.name not in MEASURED]
    return [tuple(getattr(row, name) for name in names) for row in rows]


def losses(rows: Iterable[Row]) -> list[float]:
    return [row.loss for row in rows]
