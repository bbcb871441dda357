"""The four networks that `secateurs transfer` attacks when nothing else is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from secateurs.zoo import load_data, load_model
from secateurs.zoo.digits_family import FAMILY
from secateurs.zoo.models import DIGITS_NAMES


@pytest.fixture(autouse=True)
def _use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEURS_CACHE", str(cache))


@pytest.mark.parametrize("name", FAMILY)
def test_it_reads_the_held_out_digits(name: str, cache: Path) -> None:
    loaded = load_model(name)
    data = load_data("digits", model=loaded)
    images = torch.stack([data.dataset[i][0] for i in range(len(data.dataset))])
    labels = torch.tensor([item.label for item in data.dataset.items])
    with torch.inference_mode():
        right = (loaded.model(images).argmax(1) == labels).float().mean().item()
    assert right > 0.9
    assert (loaded.name, loaded.num_classes) == (name, 10)
    assert loaded.classes == [str(digit) for digit in range(10)]
    assert (cache / f"{loaded.weights}.safetensors").is_file()
    written = (cache / f"{loaded.weights}.safetensors").stat().st_mtime_ns
    again = load_model(name)
    assert (cache / f"{loaded.weights}.safetensors").stat().st_mtime_ns == written
    pairs = zip(loaded.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_they_are_of_different_families_and_larger_than_they_need_to_be() -> None:
    kinds = {}
    for name, build in FAMILY.items():
        model = build(pretrained=False)
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
        assert sum(p.numel() for p in model.parameters()) > 100 * 901  # 100 a training image
        kinds[name] = {type(m) for m in model.modules()} & {
            nn.BatchNorm2d, nn.LayerNorm, nn.MaxPool2d, nn.GELU,
        }  # fmt: skip
    assert kinds["digits-plain"] == {nn.MaxPool2d}
    assert kinds["digits-wide"] == kinds["digits-residual"] == {nn.BatchNorm2d, nn.MaxPool2d}
    assert kinds["digits-patches"] == {nn.LayerNorm, nn.GELU}


def test_their_sizes_are_those_that_are_documented() -> None:
    for build in FAMILY.values():
        count = sum(p.numel() for p in build(pretrained=False).parameters())
        assert f"{count:,} parameters" in (build.__doc__ or "")


def test_names_are_known() -> None:
    assert set(FAMILY) < set(DIGITS_NAMES)
    assert load_model("digits-wide", weights="random").weights == "random"
