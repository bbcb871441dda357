"""Images that cannot be read: named, or skipped without moving the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_nets import loader, losses, outcome
from torch import Tensor, nn
from torch.utils.data import default_collate

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation import accuracy, sweep
from secateurs.zoo import Preprocess, drop_skipped, load_data

CLASSES, EACH = 3, 8
BROKEN = {0, 4, 5, 6, 7, 13, 23}  # with batches of 4, the whole second batch


def to_tensor(image: Image.Image) -> Tensor:
    pixels = np.asarray(image.resize((8, 8)), dtype=np.float32)
    return torch.from_numpy(pixels / 255)[None]


def folder(root: Path, broken: set[int] | range = frozenset()) -> Path:
    """Grey images of three classes; the broken ones are cut short."""
    noise = np.random.default_rng(1)
    for number in range(CLASSES * EACH):
        path = root / f"class{number // EACH}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:40])
    return root


def images(root: Path, skip: bool) -> Any:
    preprocess = Preprocess(8, 1.0, "bilinear", (0.0,), (1.0,), transform=to_tensor)
    return load_data(str(root), preprocess=preprocess, skip_corrupt=skip).dataset


def readable(samples: list[Any]) -> tuple[Tensor, Tensor]:
    return drop_skipped(*default_collate(samples))[:2]


class Answering(nn.Sequential):
    """Breaks off in its forward pass number ``after``."""

    def __init__(self, after: int = -1):
        torch.manual_seed(1)
        super().__init__(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, CLASSES))
        self.left = after

    def forward(self, batch: Tensor) -> Tensor:
        assert len(batch)
        self.left -= 1
        if self.left == -1:
            raise KeyboardInterrupt
        return super().forward(batch)


GRID: dict[str, Any] = {"p_prune": [0, 0.5, 0.9]}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path: Path, workers: int) -> None:
    data = images(folder(tmp_path / "data", {13}), skip=False)
    with pytest.raises(FailureError, match=r"^cannot read the image .*013\.png .*skip") as caught:
        sweep(Answering(), loader(data, num_workers=workers), **GRID)
    assert "\n" not in str(caught.value)


def test_after_mending_it_goes_on(tmp_path: Path) -> None:
    data = images(folder(tmp_path / "data", {13}), skip=False)
    with pytest.raises(FailureError, match="cannot read the image"):
        sweep(Answering(), loader(data, batch_size=4), output=tmp_path / "out", **GRID)
    folder(tmp_path / "data")
    rows = sweep(Answering(), loader(data, batch_size=4), output=tmp_path / "out", **GRID)
    assert outcome(rows) == outcome(sweep(Answering(), loader(data), **GRID))


def test_those_that_are_left_are_scored(tmp_path: Path) -> None:
    data = images(folder(tmp_path, BROKEN), skip=True)
    rows = sweep(Answering(), loader(data, batch_size=4, collate_fn=readable), **GRID)
    kept = [data[i] for i in range(len(data)) if i not in BROKEN]
    alone = sweep(Answering(), loader(kept, batch_size=100), **GRID)
    assert {row.count for row in rows} == {CLASSES * EACH - len(BROKEN)}
    assert outcome(rows) == outcome(alone)
    batches = loader(data, batch_size=4, collate_fn=readable)
    assert accuracy(Answering(), batches).count == rows[0].count


@pytest.mark.parametrize("size", [3, 4, 5])
def test_indices_stay_right_where_images_are_left_out(tmp_path: Path, size: int) -> None:
    data = images(folder(tmp_path / "data", BROKEN), skip=True)
    batches = loader(data, batch_size=4, collate_fn=readable)
    expected = sweep(Answering(), batches, **GRID)
    rows, again = None, loader(data, batch_size=size, collate_fn=readable)
    while rows is None:
        try:
            rows = sweep(Answering(2), again, output=tmp_path / "out", **GRID)
        except KeyboardInterrupt:
            again = batches if again is not batches else loader(data, size, collate_fn=readable)
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)


def test_nothing_but_unreadable_images_is_refused_and_can_be_mended(tmp_path: Path) -> None:
    data = images(folder(tmp_path / "data", range(CLASSES * EACH)), skip=True)
    batches = loader(data, collate_fn=readable)
    with pytest.raises(InvalidArgumentError, match="none of 24 images could be read"):
        sweep(Answering(), batches, output=tmp_path / "out", **GRID)
    folder(tmp_path / "data")
    rows = sweep(Answering(), batches, output=tmp_path / "out", **GRID)
    assert {row.count for row in rows} == {CLASSES * EACH}


def test_without_dropping_them_the_message_says_how(tmp_path: Path) -> None:
    data = images(folder(tmp_path, {2}), skip=True)
    with pytest.raises(InvalidArgumentError, match=r"from -1 to 2.*secateurs\.zoo\.drop_skipped"):
        sweep(Answering(), loader(data, batch_size=24), **GRID)
