"""Classifiers of timm, from names, files and folders."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from zoo_samples import answer, picture

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import load_model

TIMM = "timm:test_resnet"  # a network of 0.5 M parameters that timm has for tests


def test_timm_untrained_and_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    loaded = load_model(TIMM, weights="random")
    torch.manual_seed(5)
    plain = timm.create_model("test_resnet").eval()
    assert torch.equal(answer(loaded.model), answer(plain))
    config = timm.data.resolve_data_config(model=plain)
    transform = timm.data.create_transform(**config, is_training=False)
    assert torch.equal(loaded.preprocess(picture()), transform(picture()))
    assert (loaded.name, loaded.weights, loaded.num_classes) == (TIMM, "random", 1000)
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "w.pth")
    again = load_model(TIMM, weights=str(tmp_path / "w.pth"))
    assert torch.equal(answer(again.model), answer(plain))
    assert again.weights == "w.pth"


def test_timm_preprocessing_can_be_overridden() -> None:
    wanted = {"crop_pct": 0.5, "crop_mode": "border", "interpolation": "lanczos", "img_size": 96}
    loaded = load_model(TIMM, weights="random", std=[0.5], **wanted)
    made = loaded.preprocess
    assert {name: getattr(made, name) for name in wanted} == wanted
    assert made.std == (0.5,) * 3
    assert made(picture()).shape == (3, 96, 96)


def test_timm_models_of_fixed_size_are_built_for_the_size() -> None:
    loaded = load_model("timm:test_vit", weights="random", img_size=96)
    assert answer(loaded.model, 96).shape == (1, 1000)


def test_timm_for_other_classes() -> None:
    assert load_model(TIMM, weights="random", num_classes=7).num_classes == 7


def timm_folder(folder: Path, name: str = "test_resnet", **options) -> nn.Module:
    model = timm.create_model(name, **options)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return model.eval()


def test_timm_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    saved = timm_folder(tmp_path / "dir", num_classes=5)
    loaded = load_model(f"timm:{tmp_path / 'dir'}")
    assert torch.equal(answer(loaded.model), answer(saved))
    assert (loaded.weights, loaded.num_classes) == ("model.safetensors", 5)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(answer(load_model("timm:./dir").model), answer(saved))
    assert load_model("timm:./dir", weights="random").weights == "random"
    with pytest.raises(InvalidArgumentError, match="have 5 classes, not 6"):
        load_model("timm:./dir", num_classes=6)
    with pytest.raises(InvalidArgumentError, match="a folder has no weights 'a1_in1k'"):
        load_model("timm:./dir", weights="a1_in1k")


def test_timm_folder_knows_its_class_names(tmp_path: Path) -> None:
    timm_folder(tmp_path, num_classes=2)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "label_names": ["cat", "dog"]}))
    assert load_model(f"timm:{tmp_path}").classes == ["cat", "dog"]


def test_timm_folders_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is no timm folder: it needs config\.json"):
        load_model(f"timm:{tmp_path}")
    for text in ("{", '{"a":' + "[" * 100_000, "[]", '{"a": ' + "9" * 10_000 + "}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(FailureError, match=r"cannot read .*config\.json") as caught:
            load_model(f"timm:{tmp_path}")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(InvalidArgumentError, match="for a folder of transformers write hf:"):
        load_model(f"timm:{tmp_path}")
    (tmp_path / "config.json").write_text('{"architecture": "test_resnext"}')
    with pytest.raises(InvalidArgumentError, match="did you mean test_resnet"):
        load_model(f"timm:{tmp_path}")
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet"}')
    with pytest.raises(InvalidArgumentError, match=r"holds no weights: put model\.safetensors"):
        load_model(f"timm:{tmp_path}")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidArgumentError, match=r"missing \(.*1 unexpected \(a\)"):
        load_model(f"timm:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(FailureError, match="damaged"):
        load_model(f"timm:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "weights", "words"),
    [
        ("timm:resnet19", None, "timm has no model 'resnet19'; did you mean resnet"),
        ("timm:resnet18.nothing", None, "no pretrained weights 'nothing': choose from a1_in1k"),
        ("timm:resnet18", "nothing", "no pretrained weights 'nothing': choose from a1_in1k"),
        ("timm:test_resnet", "absent.pth", "no weights file"),
    ],
)
def test_timm_names_that_are_wrong(spec: str, weights: str | None, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        load_model(spec, weights=weights)


def test_timm_without_published_weights() -> None:
    published = {name.partition(".")[0] for name in timm.list_pretrained()}
    name = min(set(timm.list_models("resnet*")) - published)
    with pytest.raises(InvalidArgumentError, match=f"timm publishes no weights for {name}"):
        load_model(f"timm:{name}")


@pytest.mark.parametrize(("spec", "weights"), [(TIMM, None), ("timm:resnet18", "tv_in1k")])
def test_timm_without_a_network(no_network: None, spec: str, weights: str | None) -> None:
    with pytest.raises(FailureError, match=r"cannot get the weights of timm:.*weights='FILE'") as e:
        load_model(spec, weights=weights)
    assert "\n" not in str(e.value)
