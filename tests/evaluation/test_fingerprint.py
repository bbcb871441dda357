"""Rows of other images of the same number are not taken for rows of these."""

import random
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_nets import IMAGES, Images, Stop, Stopping, loader, network, outcome
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset

from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import sensitivity, sweep
from secateurs.evaluation.fingerprint import fingerprint
from secateurs.results import read_rows

SMALL: dict[str, Any] = {"p_prune": [0, 0.5], "progress": False}


class Drawing(Images):
    """Draws from all three global random states, as augmentations do."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        return self.pixels[index] + noise, int(self.labels[index])


class Pictures(Images):
    """Gives images of PIL, which the loader's collate function turns into tensors."""

    def __getitem__(self, index: int) -> Any:
        levels = (self.pixels[index, 0] * 20 + 100).byte().numpy()
        return {"image": Image.fromarray(levels), "name": "x", "label": int(self.labels[index])}


class Streamed(IterableDataset[Any]):
    def __init__(self, images: Images) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Any]:
        return iter([self.images[place] for place in range(IMAGES)])


class Batches:
    """A loader of one's own; ``once`` makes it one that cannot be iterated again."""

    def __init__(self, images: Images, once: bool = False) -> None:
        self.batches = iter([*loader(images)]) if once else [*loader(images)]
        self.once = once

    def __iter__(self) -> Any:
        return self if self.once else iter(self.batches)

    def __next__(self) -> Any:
        return next(self.batches)  # type: ignore[call-overload]


def scaled(samples: list[Any]) -> tuple[Tensor, Tensor]:
    pixels = [torch.from_numpy(np.asarray(each["image"]).copy()).float()[None] for each in samples]
    return torch.stack(pixels), torch.tensor([each["label"] for each in samples])


def changed(kind: type[Images] = Images, pixel: bool = False, label: int | None = None) -> Images:
    """Other images, or the same with one other label."""
    images = kind()
    if pixel:
        images.pixels = images.pixels.flip(0)
    if label is not None:
        images.labels[label] = (images.labels[label] + 1) % 7
    return images


LOADERS: dict[str, Any] = {
    "in order": loader,
    "shuffled": lambda images: loader(images, shuffle=True),
    "workers": lambda images: loader(images, num_workers=2),
    "batches of 5": lambda images: loader(images, batch_size=5),
    "a part": lambda images: loader(Subset(images, range(2, 40))),
    "two parts": lambda images: loader(ConcatDataset([images, images])),
    "tensors": lambda images: loader(TensorDataset(images.pixels, images.labels)),
    "streamed": lambda images: loader(Streamed(images)),
    "a list": lambda images: [*loader(images)],
    "of one's own": Batches,
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_the_same_images_are_known_again_and_others_are_not(make: Any) -> None:
    first = fingerprint(make(Images()))
    assert first == fingerprint(make(Images()))
    assert any(first.values())
    assert first != fingerprint(make(changed(pixel=True)))


def test_order_batches_and_workers_make_no_difference() -> None:
    ways = ("in order", "shuffled", "workers", "batches of 5")
    assert len({str(fingerprint(LOADERS[way](Images()))) for way in ways}) == 1


def test_every_label_counts() -> None:
    for make in (loader, LOADERS["tensors"], lambda data: loader(Subset(data, range(IMAGES)))):
        first, other = fingerprint(make(Images())), fingerprint(make(changed(label=7)))
        differing = [name for name in first if first[name] != other[name]]
        assert differing == ["labels"]


def test_images_of_pil_and_what_the_loader_makes_of_them_count() -> None:
    def doubled(samples: list[Any]) -> tuple[Tensor, Tensor]:
        pixels, labels = scaled(samples)
        return pixels * 2, labels

    prints = [
        fingerprint(loader(changed(Pictures, pixel), collate_fn=way))
        for pixel in (False, True)
        for way in (scaled, doubled)
    ]
    assert len({each["0"] for each in prints}) == 4
    plain = [fingerprint(DataLoader(Pictures(), batch_size=None, collate_fn=list)) for _ in "12"]
    assert plain[0] == plain[1]


def test_random_states_stay_and_what_draws_from_them_is_known_again() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = fingerprint(loader(Drawing()))
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    assert first == fingerprint(loader(Drawing()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    Drawing()
    assert drawn == (random.random(), float(np.random.rand()), float(torch.rand(())))
    assert None not in first.values()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", [{"pixel": True}, {"label": 7}])
def test_a_sweep_of_other_images_is_refused(
    tmp_path: Path, change: dict[str, Any], finished: bool
) -> None:
    images = Images()
    if finished:
        sweep(Stopping(), loader(images), output=tmp_path, **SMALL)
    else:
        with pytest.raises(Stop):
            sweep(Stopping(9), loader(images), output=tmp_path, **SMALL)
    with pytest.raises(InvalidArgumentError, match=r"other images or labels.*overwrite") as caught:
        sweep(Stopping(), loader(changed(**change)), output=tmp_path, **SMALL)
    assert "\n" not in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(Stopping(), loader(images, shuffle=True), output=tmp_path, **SMALL)
        sweep(Stopping(), loader(changed(**change)), output=tmp_path, overwrite=True, **SMALL)


def test_what_an_older_version_wrote_goes_on_with_a_warning(tmp_path: Path) -> None:
    rows = sweep(network(), loader(), output=tmp_path, **SMALL)
    config = tmp_path / "config.json"
    head, _, tail = config.read_text().partition('  "image_samples": {')
    config.write_text(head.rstrip(", \n") + tail.partition("}")[2])
    with pytest.warns(
        UserWarning, match="of the same images: this cannot be checked.*overwrite=True"
    ):
        assert sweep(network(), loader(), output=tmp_path, **SMALL) == rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # from now on it is known
        assert sweep(network(), loader(), output=tmp_path, **SMALL) == rows
        with pytest.raises(InvalidArgumentError, match="other images or labels"):
            sweep(network(), loader(changed(pixel=True)), output=tmp_path, **SMALL)


@pytest.mark.parametrize("measure", [sweep, partial(sensitivity, ratios=0.5)])
def test_a_loader_that_can_be_iterated_once_has_no_fingerprint(
    tmp_path: Path, measure: Any
) -> None:
    assert not any(fingerprint(Batches(Images(), once=True)).values())
    options = {"output": tmp_path, **(SMALL if measure is sweep else {"progress": False})}
    rows = measure(network(), Batches(Images(), once=True), **options)
    assert rows[0].count == IMAGES
    with pytest.warns(UserWarning, match="this loader can be iterated only once"):
        assert measure(network(), Batches(Images(), once=True), **options) == rows


def test_images_that_cannot_be_read_are_no_difference(tmp_path: Path) -> None:
    def fail(index: int) -> None:
        if index == 15:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        sweep(Stopping(), loader(Images(before=fail)), output=tmp_path, **SMALL)
    rows = sweep(Stopping(), loader(), output=tmp_path, **SMALL)
    assert (
        outcome(rows)
        == outcome(read_rows(tmp_path))
        == outcome(sweep(Stopping(), loader(), **SMALL))
    )
