"""Preprocessing: checked values, and exactly the transforms that the sources use themselves."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from zoo_samples import picture

from secateurs.errors import InvalidArgumentError
from secateurs.zoo.preprocess import Overrides, build, crop_fraction

BASE = {
    "img_size": 8,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"img_size": 0}, "img_size must be a whole number from 1"),
        ({"img_size": 224.0}, "img_size must be a whole number from 1"),
        ({"crop_pct": 0}, "crop_pct must be above 0 and at most 1"),
        ({"crop_pct": 87.5}, "crop_pct must be above 0 and at most 1"),
        ({"interpolation": "bicubik"}, "did you mean bicubic"),
        ({"crop_mode": "middle"}, "crop_mode must be one of center, squash, border"),
        ({"mean": (0.5, 0.5)}, "mean must be 1 or 3 numbers"),
        ({"mean": (float("nan"),)}, "mean must be 1 or 3 numbers"),
        ({"mean": object()}, "mean must be 1 or 3 numbers"),
        ({"crop_pct": float("nan")}, "crop_pct must be above 0 and at most 1"),
        ({"std": (0.5, 0.5, 0.0)}, "std must be above 0"),
    ],
)
def test_overrides_are_checked(given: dict, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Overrides(**given)


def test_one_number_holds_for_every_channel() -> None:
    made = build(BASE, Overrides(mean=(0.25,), std=(0.125,)), "test")
    assert made.mean == (0.25,) * 3
    white = Image.new("RGB", (8, 8), (255, 255, 255))
    assert torch.equal(made(white), torch.full((3, 8, 8), (1 - 0.25) / 0.125))


def test_numbers_of_numpy() -> None:
    given = Overrides(
        img_size=np.int64(8), crop_pct=np.float32(0.5), mean=np.float32([0.25]), std=np.float32(0.5)
    )
    made = build(BASE, given, "test")
    assert (made.img_size, made.crop_pct, made.mean, made.std) == (8, 0.5, (0.25,) * 3, (0.5,) * 3)


def test_too_many_channels_are_refused() -> None:
    grey = {**BASE, "mean": (0.5,), "std": (0.5,)}
    with pytest.raises(InvalidArgumentError, match=r"reads 1 channel: give 1 or 1"):
        build(grey, Overrides(mean=(0.5, 0.5, 0.5)), "test")


def test_grey_models_read_grey_images() -> None:
    made = build({**BASE, "mean": (0.5,), "std": (0.5,)}, Overrides(), "test")
    assert made(picture()).shape == (1, 8, 8)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_any_image_becomes_rgb(mode: str) -> None:
    assert build(BASE, Overrides(), "test")(picture().convert(mode)).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_crop_modes_differ_and_are_reported(mode: str) -> None:
    made = build(BASE, Overrides(crop_mode=mode), "test")
    others = [build(BASE, Overrides(crop_mode=m), "test") for m in ("center", "squash", "border")]
    same = [torch.equal(made(picture()), other(picture())) for other in others]
    assert same.count(True) == 1
    assert f"({mode})" in str(made)
    assert made.source == "test, except crop_mode"


def test_str_is_one_line_with_all_values() -> None:
    text = str(build(BASE, Overrides(img_size=16), "test"))
    expected = "size 16, crop 1 (center), bilinear, mean 0.5/0.5/0.5, std 0.5/0.5/0.5"
    assert text == f"{expected}, from test, except img_size"


def test_it_travels_to_workers() -> None:
    made = build(BASE, Overrides(), "test")
    assert torch.equal(pickle.loads(pickle.dumps(made))(picture()), made(picture()))


def test_crop_fraction_gives_back_every_published_size() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        for entry in torchvision.models.get_model_weights(name):
            transform = entry.transforms()
            crop, resize = transform.crop_size[0], transform.resize_size[0]
            assert int(crop / crop_fraction(crop, resize)) == resize
    for crop in range(1, 400, 7):
        for resize in range(crop, 500, 3):
            assert int(crop / crop_fraction(crop, resize)) == resize


def test_a_pair_of_sizes() -> None:
    made = build({**BASE, "img_size": (8, 12)}, Overrides(), "test")
    assert made(picture()).shape == (3, 8, 12)
    assert made.img_size == 8
