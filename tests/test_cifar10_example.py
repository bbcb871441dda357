"""The example that trains CIFAR-10 networks, and the trained weights in results/cifar10."""

import argparse
import importlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from secateurs.zoo import load_data, load_model

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RESULTS = ROOT / "results" / "cifar10"
WEIGHTS = sorted(RESULTS.glob("*.safetensors"))
FAMILIES = ["resnet", "vgg", "mobilenet", "convnext"]
SIZES = {"train": 40, "test": 20}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("train_cifar10")


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("cifar10_networks")


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """Two parquet files of noise: images as PNG bytes, labels in turn."""
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow reads the parquet files")
    parquet = pytest.importorskip("pyarrow.parquet")
    random = np.random.default_rng(0)
    for split, count in SIZES.items():
        rows = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(random.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(
                file, "png"
            )
            rows.append({"bytes": file.getvalue(), "path": None})
        table = pyarrow.table({"image": rows, "label": [n % 10 for n in range(count)]})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    return tmp_path


@pytest.fixture
def run(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs the script, and returns what it prints."""

    def run(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["train_cifar10.py", "--device", "cpu", *map(str, words)])
        capsys.readouterr()
        script.main()
        return capsys.readouterr().out

    return run


def options(**changes: object) -> argparse.Namespace:
    usual = {"batch": 20, "epochs": 2, "seed": 0, "device": torch.device("cpu")}
    return argparse.Namespace(**(usual | changes))


def made_up_data(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise on a colour that tells the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    colours = torch.cartesian_prod(*[torch.tensor([0, 110, 220])] * 3)[::2][:10]
    noise = torch.randint(30, (count, 32, 32, 3), generator=generator)
    return (noise + colours[labels][:, None, None, :]).byte(), labels


def test_the_families_are_these(networks: ModuleType) -> None:
    assert list(networks.NETWORKS) == FAMILIES


def test_every_family_is_trained_and_saved_in_half_precision(
    run: Callable[..., str], made_up: Path
) -> None:
    output = made_up / "weights"
    sizes = ("--width", "0.25", "--epochs", "1", "--batch", "20")
    printed = run("--data", made_up, "--output", output, *sizes)
    for family in FAMILIES:
        assert re.search(rf"{family}: epoch 1 of 1, loss [\d.]+, \d+ s\n", printed)
        assert re.search(rf"{family}: [\d,]+ parameters, [\d.]+% in single precision\n", printed)
        weights = load_file(output / f"{family}.safetensors")
        assert {tensor.dtype for tensor in weights.values()} <= {torch.float16, torch.int64}
    assert len(list(output.iterdir())) == len(FAMILIES), "checkpoints are removed"
    again = run("--data", made_up, "--output", output, *sizes, "--arch", "vgg")
    assert "epoch" not in again
    assert again in printed, "what is trained is loaded, and just as good"


def test_training_goes_on_where_it_was_stopped(
    script: ModuleType, networks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, epoch = made_up_data(40), script.train_epoch

    def trained(name: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = networks.vgg(width=0.25)
        script.train("vgg", model, data, options(), tmp_path / name)
        return model.state_dict()

    def stops(*arguments: object) -> float:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        return epoch(*arguments)

    straight = trained("straight")
    monkeypatch.setattr(script, "train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        trained("stopped")
    monkeypatch.setattr(script, "train_epoch", epoch)
    with pytest.raises(SystemExit, match="other --epochs"):
        script.train("vgg", networks.vgg(width=0.25), data, options(epochs=9), tmp_path / "stopped")
    for name, tensor in trained("stopped").items():
        assert torch.equal(tensor, straight[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_a_few_images_by_heart(
    script: ModuleType, networks: ModuleType, family: str, tmp_path: Path
) -> None:
    data = made_up_data(10)
    torch.manual_seed(0)
    model = networks.NETWORKS[family](width=0.25)
    script.train(family, model, data, options(epochs=40, batch=128), tmp_path / "checkpoint")
    assert script.accuracy(model, data, torch.device("cpu")) > 30  # by chance 10


def test_crops_move_and_mirror_whole_images(script: ModuleType) -> None:
    images = made_up_data(200)[0]
    changed = script.cropped_and_flipped(images, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    padded = torch.nn.functional.pad(images, (0, 0, 4, 4, 4, 4))
    seen = set()
    for image, result in zip(padded, changed, strict=True):
        places = [
            (top, left, mirror)
            for top in range(9)
            for left in range(9)
            for mirror in (False, True)
            if torch.equal(crop(image, top, left, mirror), result)
        ]
        assert len(places) == 1
        seen |= set(places)
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert {mirror for _, _, mirror in seen} == {False, True}


def crop(image: torch.Tensor, top: int, left: int, mirror: bool) -> torch.Tensor:
    part = image[top : top + 32, left : left + 32]
    return part.flip(1) if mirror else part


def test_secateurs_reads_the_networks_and_the_exported_images(
    script: ModuleType, run: Callable[..., str], made_up: Path
) -> None:
    run("--data", made_up, "--export-images", made_up / "images", "--count", "10")
    folders = sorted(path.name for path in (made_up / "images").iterdir())
    assert folders == sorted(script.CLASSES)
    torch.manual_seed(0)
    model = script.NETWORKS["mobilenet"](width=1)
    script.save_half(model, made_up / "mobilenet.safetensors", {})
    loaded = load_model(
        "cifar10_networks:mobilenet", weights=str(made_up / "mobilenet.safetensors")
    )
    read = load_data(made_up / "images", model=loaded)
    images, labels = script.read_images(made_up, "test", 10)
    assert [label for _, label in read.dataset] == labels.tolist(), "classes by their names"
    ours = script.normalised(images, torch.device("cpu"))
    theirs = torch.stack([image for image, _ in read.dataset])
    assert torch.allclose(ours, theirs, atol=1e-5), "the same pixels as in training"


def stated(family: str) -> tuple[int, float]:
    """Parameters and accuracy in percent, as results/cifar10/README.md has them."""
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {family} \| ([\d,]+) \| [\d.]+ \| ([\d.]+) \|", text, re.MULTILINE)
    assert row, f"results/cifar10/README.md has no row for {family}"
    return int(row[1].replace(",", "")), float(row[2])


@pytest.mark.parametrize("file", WEIGHTS, ids=lambda path: path.stem)
def test_committed_weights_are_as_good_as_stated(
    script: ModuleType, file: Path, shared_data: Path
) -> None:
    pytest.importorskip("pyarrow", reason="pip install pyarrow reads the parquet files")
    parameters, percent = stated(file.stem)
    loaded = load_model(f"cifar10_networks:{file.stem}", weights=str(file))
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == parameters
    data = script.read_images(shared_data / "cifar10-jpeg", "test", 500)
    found = script.accuracy(loaded.model, data, torch.device("cpu"))
    assert abs(found - percent) < 5, "three standard errors of 500 images"


def test_committed_weights_are_small() -> None:
    assert [path.stem for path in WEIGHTS] == sorted(FAMILIES)
    assert sum(path.stat().st_size for path in WEIGHTS) < 15e6
