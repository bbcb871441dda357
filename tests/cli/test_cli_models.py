"""Models of every kind, on real images where they lie beside the repository."""

from pathlib import Path

import pytest
import timm
import torch
from command_line import Run
from PIL import Image

KERNEL = ("--layers", "conv2d", "--granularity", "kernel", "--p-prune", "0", "0.4", "--workers", 0)


def test_a_timm_folder(run: Run, tmp_path: Path, pictures: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    timm.models.save_for_hf(model, tmp_path / "folder", safe_serialization=True)
    words = ("--arch", "timm:./folder", "--data", pictures, "--img-size", 32)
    dense, pruned = run("sweep", *words, *KERNEL).rows
    assert (dense["model"], dense["weights"]) == ("timm:./folder", "model.safetensors")
    assert (dense["count"], dense["img_size"]) == (30, 32)
    assert pruned["loss"] != dense["loss"]


def test_a_transformers_folder(run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        id2label={0: "red", 1: "green"},
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path / "vit")
    for name in ("red", "green"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), name).save(tmp_path / "data" / name / "a.png")
    words = ("--arch", "hf:./vit", "--data", "data", "--p-prune", 0, 0.5, "--workers", 0)
    dense, pruned = run("sweep", *words, "--layers", "linear").rows
    assert (dense["model"], dense["weights"], dense["count"]) == ("hf:./vit", "pretrained", 2)
    assert pruned["achieved"] == pytest.approx(0.5, abs=0.01) and pruned["loss"] != dense["loss"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("arch", "file", "top1"),
    [
        ("squeezenet1_1", "squeezenet1_1", 37.5),
        ("timm:tf_efficientnet_lite0", "tf_efficientnet_lite0", 75.0),
    ],
)
def test_trained_networks_on_imagenet_compatible(
    run: Run, shared_data: Path, shared_models: Path, arch: str, file: str, top1: float
) -> None:
    words = ("--arch", arch, "--weights", shared_models / f"{file}.safetensors")
    data = ("--data", shared_data / "imagenet-compatible", "--limit", 16)
    said = run("sweep", *words, *data, *KERNEL)
    dense, pruned = said.rows
    assert (dense["count"], dense["top1"]) == (16, top1)
    assert pruned["units"] > 30_000 and pruned["loss"] != dense["loss"]
    assert f"{top1:.1f}" in said.out


@pytest.mark.shared
def test_mnist_with_a_network_of_ones_own(run: Run, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mnist_network.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 3), torch.nn.Flatten(),\n"
        "                              torch.nn.Linear(4 * 9 * 9, 10))\n"
        "    net.preprocess = {'img_size': 28, 'crop_pct': 1.0, 'mean': 0.1307, 'std': 0.3081}\n"
        "    return net\n"
    )
    words = ("--arch", "mnist_network:build", "--data", "mnist", "--data-root", shared_data)
    (row,) = run("sweep", *words, "--limit", 100, "--p-prune", 0.5, "--workers", 0).rows
    assert (row["data"], row["split"], row["count"]) == ("mnist", "test", 100)
    assert "mean 0.1307, std 0.3081, from the model" in row["preprocess"]
