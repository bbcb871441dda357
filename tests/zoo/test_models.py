"""The trained networks on real images, against plain evaluation loops."""

import csv
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from secateurs.zoo import load_data, load_model
from secateurs.zoo.preprocess import Preprocess


def plain_predictions(model: nn.Module, transform, folder: Path, count: int) -> list[int]:
    with (folder / "images.csv").open() as file:
        names = [row["ImageId"] for row in csv.DictReader(file)][:count]
    found = []
    with torch.inference_mode():
        for name in names:
            image = Image.open(folder / "images" / f"{name}.png").convert("RGB")
            found.append(int(model(transform(image)[None]).argmax()))
    return found


@pytest.mark.shared
@pytest.mark.parametrize("name", ["squeezenet1_1", "tf_efficientnet_lite0"])
def test_dense_answers_are_those_of_a_plain_loop(
    shared_data: Path, shared_models: Path, name: str
) -> None:
    file = shared_models / f"{name}.safetensors"
    if name.startswith("tf_"):
        spec, plain = f"timm:{name}", timm.create_model(name)
        config = timm.data.resolve_data_config(model=plain)
        transform = timm.data.create_transform(**config, is_training=False)
    else:
        spec, plain = name, torchvision.models.squeezenet1_1()
        transform = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    plain.load_state_dict(load_file(file))
    folder = shared_data / "imagenet-compatible"
    expected = plain_predictions(plain.eval(), transform, folder, 40)
    loaded = load_model(spec, weights=file)
    data = load_data(folder, model=loaded)
    with torch.inference_mode():
        found = [int(loaded.model(data.dataset[i][0][None]).argmax()) for i in range(40)]
    assert found == expected
    right = [data.dataset.items[i].label == found[i] for i in range(40)]
    assert sum(right) > (12 if name == "squeezenet1_1" else 32)


@pytest.mark.shared
def test_lite0_has_its_own_data_config(shared_models: Path) -> None:
    file = shared_models / "tf_efficientnet_lite0.safetensors"
    made: Preprocess = load_model("timm:tf_efficientnet_lite0", weights=file).preprocess
    assert (made.img_size, made.crop_pct, made.interpolation) == (224, 0.875, "bicubic")
    assert made.mean == made.std == (0.5, 0.5, 0.5)
