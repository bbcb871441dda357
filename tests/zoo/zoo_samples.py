"""Small things that several of the zoo's tests use."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from secateurs.zoo import LoadedData, LoadedModel
from secateurs.zoo.preprocess import Overrides, Preprocess, build

WNIDS = ("n01440764", "n01443537", "n15075141")  # tench, goldfish, toilet tissue: 0, 1, 999


def picture(size: tuple[int, int] = (411, 301)) -> Image.Image:
    """Noise, always the same, of this width and height."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(levels.numpy())


def answer(model: nn.Module, size: int = 64) -> torch.Tensor:
    """What a model says to one fixed image."""
    with torch.inference_mode():
        out = model(torch.linspace(-1, 1, 3 * size * size).view(1, 3, size, size))
    return getattr(out, "logits", out)


def preprocess(channels: int = 3, size: int = 8) -> Preprocess:
    base = {
        "img_size": size,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.0,) * channels,
        "std": (1.0,) * channels,
    }
    return build(base, Overrides(), "test")


def model(num_classes: int | None, classes: list[str] | None = None) -> LoadedModel:
    return LoadedModel(nn.Identity(), "tiny", "random", num_classes, classes, preprocess())


def write_image(path: Path, level: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((10, 12, 3), level, dtype=np.uint8)).save(path)


def imagenet(folder: Path, classes: tuple[str, ...] = WNIDS, count: int = 3) -> Path:
    for place, name in enumerate(classes):
        for index in range(count):
            write_image(folder / name / f"{name}_{index}.JPEG", 20 * place + index)
    return folder


def labels_of(data: LoadedData) -> list[int]:
    return [data.dataset[i][1] for i in range(len(data.dataset))]


def files_of(data: LoadedData) -> list[str]:
    return [Path(data.dataset.name_of(i)).name for i in range(len(data.dataset))]


def compatible(folder: Path, rows: list[tuple], header=("ImageId", "TrueLabel", "TargetClass")):
    (folder / "images").mkdir(parents=True)
    with (folder / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for row in rows:
        write_image(folder / "images" / f"{row[0]}.png")
    return folder
