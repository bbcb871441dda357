"""Classifiers of torchvision, from names and from files."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from zoo_samples import answer, picture

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import load_model


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "squeezenet1_1"])
def test_torchvision_untrained(spec: str) -> None:
    torch.manual_seed(5)
    loaded = load_model(spec, weights="random")
    torch.manual_seed(5)
    assert torch.equal(answer(loaded.model), answer(torchvision.models.squeezenet1_1().eval()))
    assert (loaded.name, loaded.weights) == ("torchvision:squeezenet1_1", "random")
    assert loaded.num_classes == 1000
    assert (loaded.classes or ())[:2] == ["tench", "goldfish"]
    assert not loaded.model.training


def test_torchvision_weights_file_is_read_without_a_download(
    tmp_path: Path, no_network: None
) -> None:
    state = torchvision.models.squeezenet1_1().state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    loaded = load_model("squeezenet1_1", weights=tmp_path / "mine.safetensors")
    assert loaded.weights == "mine.safetensors"
    assert all(torch.equal(value, state[key]) for key, value in loaded.model.state_dict().items())
    assert loaded.preprocess.source == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_torchvision_preprocessing_is_the_enums_own() -> None:
    loaded = load_model("efficientnet_b0", weights="random")
    transform = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()
    assert torch.equal(loaded.preprocess(picture()), transform(picture()))
    assert loaded.preprocess.interpolation == "bicubic"
    # An override that changes nothing goes another way to the same numbers.
    same = load_model("efficientnet_b0", weights="random", img_size=224)
    assert torch.equal(same.preprocess(picture()), transform(picture()))
    other = load_model("efficientnet_b0", weights="random", interpolation="nearest", mean=[0.5])
    assert not torch.equal(other.preprocess(picture()), transform(picture()))
    assert (other.preprocess.crop_pct, other.preprocess.mean) == (0.875, (0.5,) * 3)
    assert other.preprocess.source.endswith("IMAGENET1K_V1, except interpolation, mean")


def test_torchvision_for_other_classes(tmp_path: Path) -> None:
    save_file(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), tmp_path / "w.pt")
    torch.save(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), tmp_path / "w.pt")
    loaded = load_model("squeezenet1_1", weights=tmp_path / "w.pt", num_classes=7)
    assert (loaded.num_classes, loaded.classes) == (7, None)
    assert answer(loaded.model).shape == (1, 7)
    with pytest.raises(InvalidArgumentError, match="set num_classes"):
        load_model("squeezenet1_1", weights=tmp_path / "w.pt")
    with pytest.raises(InvalidArgumentError, match="IMAGENET1K_V1 have 1000 classes, not 7"):
        load_model("squeezenet1_1", num_classes=7)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_0().state_dict(), tmp_path / "other.pth")
    with pytest.raises(InvalidArgumentError, match=r"do not fit SqueezeNet: .*features"):
        load_model("squeezenet1_1", weights=str(tmp_path / "other.pth"))
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        InvalidArgumentError, match=r"52 missing \(.* and 48 more\), 122 unexpected"
    ):
        load_model("squeezenet1_1", weights=str(tmp_path / "other.pth"))


def test_old_keys_of_published_files_are_understood(tmp_path: Path) -> None:
    state = torchvision.models.densenet121(num_classes=2).state_dict()
    old = {}
    for key, value in state.items():
        for part in ("norm", "conv"):
            for digit in "12":
                if "denselayer" in key:
                    key = key.replace(f".{part}{digit}.", f".{part}.{digit}.")
        old[key] = value
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet.pth")
    loaded = load_model("densenet121", weights=str(tmp_path / "densenet.pth"), num_classes=2)
    assert all(torch.equal(value, state[key]) for key, value in loaded.model.state_dict().items())


@pytest.mark.parametrize("heads", [False, True])
def test_googlenet_from_a_file_is_the_published_network(tmp_path: Path, heads: bool) -> None:
    model = torchvision.models.googlenet(num_classes=2, aux_logits=heads, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "g.pth")
    loaded = load_model("googlenet", weights=str(tmp_path / "g.pth"), num_classes=2).model
    assert loaded.transform_input
    assert loaded.aux1 is None
    assert not loaded.aux_logits


def test_torchvision_without_a_network(no_network: None) -> None:
    with pytest.raises(FailureError) as caught:
        load_model("resnet18", weights="IMAGENET1K_V1")
    text = str(caught.value)
    assert text.startswith("cannot get the weights IMAGENET1K_V1 of torchvision:resnet18 (")
    assert text.endswith("weights='FILE'")
    assert "\n" not in text
    with pytest.raises(FailureError, match="the weights IMAGENET1K_V2 of torchvision:resnet50"):
        load_model("resnet50", weights="DEFAULT")
    with pytest.raises(FailureError, match="the weights IMAGENET1K_V1 of torchvision:resnet50"):
        load_model("resnet50")  # published tables use V1


@pytest.mark.parametrize(
    ("spec", "weights", "words"),
    [
        ("resnet19", None, "no classifier 'resnet19'; did you mean resnet"),
        ("vit_tiny_patch16_224", None, "timm has it: timm:vit_tiny_patch16_224"),
        ("fasterrcnn_resnet50_fpn", None, "torchvision has no classifier"),
        ("resnet18", "IMAGENET1K_V2", "no weights 'IMAGENET1K_V2'.*choose from IMAGENET1K_V1, "),
        ("resnet18", "absent.pth", "no weights file absent.pth"),
        ("resnet18", Path("absent"), "no weights file absent"),
        ("vit_h_14", None, "no weights IMAGENET1K_V1: choose weights from IMAGENET1K_SWAG_E2E_V1"),
        ("", None, "a model is named by text"),
    ],
)
def test_wrong_names(spec: str, weights: str | Path | None, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        load_model(spec, weights=weights)


def test_wrong_names_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InvalidArgumentError, match="no classifier 'resnet19'; did you mean"):
        load_model("resnet19")


@pytest.mark.parametrize("count", [0, -1, True])
def test_wrong_number_of_classes(count: int) -> None:
    with pytest.raises(InvalidArgumentError, match="num_classes must be a whole number from 1"):
        load_model("resnet18", weights="random", num_classes=count)
