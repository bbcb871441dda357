"""What torch.set_default_device says changes nothing: tensors are made where the weights are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import secateurs as sc
from secateurs.attacks import attack
from secateurs.checkpoint import prune_checkpoint
from secateurs.training import Constant, GradientPruner, MagnitudeRegrowth, Pruner
from secateurs.training.augmentation import AUGMENTATIONS
from secateurs.training.labelled_images import LabelledImages, StreamedImages, epoch


def network() -> nn.Module:
    torch.manual_seed(0)
    with torch.device("cpu"):
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 8)).eval()


def images() -> Tensor:
    return torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def input_gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    return gradient


def pruned(x: Tensor) -> Tensor:
    model = sc.global_prune(network(), 0.5, 0.8, score="random", seed=0)
    sc.global_prune(model, 0.4)  # from the originals
    return input_gradient(model, x)


def gradient_pruned(x: Tensor) -> Tensor:
    return input_gradient(sc.gradient_prune(network(), 0.5), x)


def gradient_pruned_by_sparse_products(_: Tensor) -> Tensor:
    torch.manual_seed(0)
    with torch.device("cpu"):
        model, x = nn.Linear(500, 480).double(), torch.ones(130, 500, dtype=torch.float64)
    GradientPruner(model, 0.95, weight_gradient="masked")
    input_gradient(model, x)
    return input_gradient(model, x)  # a pattern is for masks that stay


def surrogate(x: Tensor) -> Tensor:
    return input_gradient(sc.Diversified(network(), 0.5, 0.5, seed=0), x)


def repaired(x: Tensor) -> Tensor:
    model = sc.global_prune(network(), 0.5)
    sc.repair(model, x, ["reconstruct"])
    return input_gradient(model, x)


def regrown(x: Tensor) -> Tensor:
    regrow = MagnitudeRegrowth(gamma=0.1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, Constant(0.5), regrow=regrow, seed=0)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        pruner.step()
    return input_gradient(model, x)


def training_images(x: Tensor) -> Tensor:
    labels = torch.arange(len(x), device="cpu")
    pairs = list(zip(x, labels.tolist(), strict=True))
    first, second = LabelledImages.read(pairs).split(0.5)  # type: ignore[arg-type]
    streamed = StreamedImages(pairs)  # type: ignore[arg-type]
    batches = [
        batch
        for part in (first, second, streamed)
        for augment in AUGMENTATIONS
        for batch, _ in epoch(part, 0, batch_size=2, seed=0, augment=augment)
    ]
    return torch.cat(batches)


def attacked(x: Tensor) -> Tensor:
    pixels, classes = x.sigmoid(), torch.arange(len(x), device="cpu")
    options = {"method": "mi-di-ti-logit", "eps": 0.1, "alpha": 0.05, "steps": 2}
    return attack([network()], pixels, classes, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "run",
    [
        pruned,
        gradient_pruned,
        gradient_pruned_by_sparse_products,
        surrogate,
        repaired,
        regrown,
        training_images,
        attacked,
    ],
)
@pytest.mark.filterwarnings("ignore::secateurs.RepairWarning")  # of few images
def test_tensors_are_made_where_the_weights_are(run: Callable[[Tensor], Tensor]) -> None:
    x = images()
    expected = run(x)
    with torch.device("meta"):
        assert torch.equal(run(x), expected)


@pytest.mark.parametrize("score", ["magnitude", "random", "lamp"])
def test_checkpoints_are_read_into_the_memory_of_the_cpu(tmp_path: Path, score: str) -> None:
    file, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_file({"fc.weight": torch.arange(1.0, 17.0).view(4, 4)}, file)
    with torch.device("meta"):
        prune_checkpoint(file, out, 0.5, score=score, granularity="filter", seed=0)
        loaded = sc.load_checkpoint(out)["fc.weight"]
    assert loaded.count_nonzero() == 8
