"""How much a loss bends at a trained network's weights: the largest eigenvalue of its Hessian.

    secateurs retrain --arch lenet5 --dense-epochs 10 --epochs 1 --output lenet5
    python benchmarks/curvature.py --weights lenet5/dense.safetensors --data ../shared/data

The cross-entropy of the labels, and `secateurs.training.KnowledgeDistillation` from a copy of the
same network, over training images of MNIST. By power iteration: v becomes Hv / |Hv|, where Hv is
the gradient of (gradient . v). While it stays the same, gradient descent without momentum diverges
at learning rates above 2 over this eigenvalue.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from secateurs.training import KnowledgeDistillation
from secateurs.zoo import load_data, load_model


def largest_eigenvalue(model: nn.Module, loss_of: Callable[[], Tensor], steps: int) -> float:
    """The largest eigenvalue of the Hessian of a loss in the parameters of a model."""
    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss_of(), weights, create_graph=True)
    gradient = torch.cat([each.flatten() for each in gradients])
    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0))
    direction /= direction.norm()
    value = 0.0
    for _ in range(steps):
        product = torch.autograd.grad(gradient @ direction, weights, retain_graph=True)
        bent = torch.cat([each.flatten() for each in product])
        value = float(bent @ direction)
        direction = bent / bent.norm()
    return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--distill", type=float, default=0.9)
    parser.add_argument("--temperature", type=float, default=4.0)
    arguments = parser.parse_args()
    loaded = load_model("lenet5", weights=arguments.weights)
    model = loaded.model.eval()
    data = load_data(
        "mnist", model=loaded, split="train", data_root=arguments.data, limit=arguments.images
    )
    images, labels = next(iter(DataLoader(data.dataset, batch_size=arguments.images)))
    distilled = KnowledgeDistillation(
        copy.deepcopy(model), arguments.distill, arguments.temperature
    )
    losses = {
        "labels": lambda: nn.functional.cross_entropy(model(images), labels),
        f"distilled, {arguments.distill}": lambda: distilled(images, model(images), labels),
    }
    for name, loss_of in losses.items():
        print(f"{name}: {largest_eigenvalue(model, loss_of, arguments.steps):.1f}")


if __name__ == "__main__":
    main()
