"""Accuracy with 2 of 4 neighbours kept, by which neighbours make a group; nothing is retrained.

    python benchmarks/groups.py --weights FILE --data ../shared/data/cifar10-jpeg

ResNet-20 on the test images of CIFAR-10, each layer but the first (whose 27 inputs are no multiple
of 4) pruned to a half by magnitude: in groups of four inputs in the order of ``weight.flatten(1)``,
which is that of ``scope="2:4"`` and of torch's semi-structured tensors and begins with the
positions in the kernel; in groups of four channels at the same position; and with no groups.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import secateurs as sc
from secateurs.zoo import load_data, load_model

FIRST = "conv1.weight"


def channel_groups(weight: Tensor) -> Tensor:
    """The mask of the two largest weights of every four consecutive channels, True where kept."""
    last = weight.movedim(1, -1)
    groups = last.abs().reshape(-1, 4)
    kept = torch.zeros_like(groups, dtype=torch.bool)
    kept.scatter_(1, groups.topk(2).indices, True)
    return kept.view(last.shape).movedim(-1, 1)


def top1(model: nn.Module, batches: DataLoader) -> float:
    right = torch.cat([model(images).argmax(1) == labels for images, labels in batches])
    return 100 * right.double().mean().item()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    loaded = load_model("resnet20", weights=arguments.weights)
    model = loaded.model.eval()
    data = load_data(str(arguments.data), model=loaded, split="test", limit=arguments.limit)
    batches = DataLoader(data.dataset, batch_size=500)
    names = [target.name for target in sc.find_targets(model, exclude=FIRST)]
    found = {"dense": top1(model, batches)}
    with sc.pruned(model, 0.5, scope="layer", exclude=FIRST):
        found["no groups"] = top1(model, batches)
    with sc.pruned(model, scope="2:4", exclude=FIRST):
        found["inputs in order"] = top1(model, batches)
    for name in names:
        weight = model.get_parameter(name)
        weight.mul_(channel_groups(weight))
    found["channels"] = top1(model, batches)
    print(f"| groups of four | top-1, {len(data.dataset):,} images |\n| --- | ---: |")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    main()
