"""Models from the caller's own functions."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from zoo_samples import answer, picture

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import load_model

MODULE = """
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def grey():
    return nn.Conv2d(1, 4, 3)

def described():
    model = plain()
    model.num_classes, model.classes = 2, ["cat", "dog"]
    model.preprocess = {"img_size": 32, "mean": (0.5, 0.5, 0.5), "interpolation": "nearest"}
    return model

def misdescribed():
    model = plain()
    model.preprocess = {"image_size": 32}
    return model

def options(pretrained=True, num_classes=3):
    model = nn.Linear(1, num_classes)
    model.pretrained = pretrained
    return model

def needy(width, *, depth):
    return nn.Linear(width, depth)

def raising():
    raise KeyError("no such thing")

def number():
    return 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, which is not on the path."""
    (tmp_path / "zoo_test_models.py").write_text(MODULE)
    (tmp_path / "zoo_test_broken.py").write_text("import zoo_test_absent")
    (tmp_path / "zoo_test_syntax.py").write_text("def :")
    monkeypatch.chdir(tmp_path)
    for name in ("zoo_test_models", "zoo_test_broken", "zoo_test_syntax"):
        sys.modules.pop(name, None)
    return "zoo_test_models"


def test_a_function(module: str, tmp_path: Path) -> None:
    path = list(sys.path)
    loaded = load_model(f"{module}:plain")
    assert sys.path == path
    assert (loaded.name, loaded.weights) == (f"{module}:plain", "as built")
    assert (loaded.num_classes, loaded.classes) == (None, None)
    assert loaded.preprocess.source == "ImageNet defaults"
    assert loaded.preprocess(picture()).shape == (3, 224, 224)
    assert not loaded.model.training
    assert load_model(f"{module}:plain", num_classes=2).num_classes == 2
    save_file(loaded.model.state_dict(), tmp_path / "w.safetensors")
    again = load_model(f"{module}:plain", weights="w.safetensors", std=[0.5])
    assert torch.equal(answer(again.model), answer(loaded.model))
    assert again.preprocess.std == (0.5,) * 3


def test_a_function_that_describes_its_model(module: str) -> None:
    loaded = load_model(f"{module}:described", crop_pct=0.5)
    assert loaded.classes == ["cat", "dog"]
    made = loaded.preprocess
    assert (made.img_size, made.mean, made.interpolation) == (32, (0.5,) * 3, "nearest")
    assert made.crop_pct == 0.5
    assert load_model(f"{module}:grey").preprocess.image_mode == "L"
    with pytest.raises(InvalidArgumentError, match="unknown entry 'image_size'; did you mean img"):
        load_model(f"{module}:misdescribed")


def test_a_function_with_options(module: str) -> None:
    assert load_model(f"{module}:options").model.pretrained is True
    loaded = load_model(f"{module}:options", weights="random", num_classes=5)
    assert loaded.model.pretrained is False
    assert loaded.model.out_features == 5


def test_a_model_of_timm_by_function() -> None:
    loaded = load_model("timm.models:test_resnet")
    assert loaded.preprocess.source == "timm data config"
    assert loaded.num_classes == 1000


@pytest.mark.parametrize(
    ("function", "weights", "error", "words"),
    [
        ("plane", None, InvalidArgumentError, "no function 'plane'; did you mean plain"),
        ("needy", None, InvalidArgumentError, r"needs arguments \(width, depth\)"),
        ("number", None, InvalidArgumentError, r"returned a int, not a torch\.nn\.Module"),
        ("raising", None, FailureError, "raised KeyError: 'no such thing'"),
        ("plain", "random", InvalidArgumentError, "weights='random' is unknown to"),
        ("plain", "IMAGENET1K_V1", InvalidArgumentError, "no weights file 'IMAGENET1K_V1'"),
    ],
)
def test_functions_that_are_wrong(
    module: str, function: str, weights: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_model(f"{module}:{function}", weights=weights)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("keras:resnet", InvalidArgumentError, "there is no module 'keras'; a model is named"),
        ("torch.absent:f", InvalidArgumentError, "there is no module 'torch.absent'"),
        (":f", InvalidArgumentError, "':f' names no model"),
        ("torch:", InvalidArgumentError, "'torch:' names no model"),
        ("./a/b:f", InvalidArgumentError, "names no model"),
        ("zoo_test_broken:f", FailureError, "importing zoo_test_broken failed.*zoo_test_absent"),
        ("zoo_test_syntax:f", FailureError, "SyntaxError in .*line 1"),
    ],
)
def test_modules_that_are_wrong(module: str, spec: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_model(spec)
