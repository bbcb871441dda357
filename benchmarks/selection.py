"""Claim: choosing the k smallest weights costs about what reading them costs.

Ours, the exact candidates of ResNet-50's convolutions as masks, beside one pass that reads the
weights and the ways in which it is done today:

* ``torch.nn.utils.prune.global_unstructured`` concatenates, calls topk, and installs masks, hooks
  and renamed parameters;
* concatenation and ``kthvalue``, and one comparison a tensor: may take more than k under ties;
* concatenation and a full sort, as the original method does.

    python benchmarks/selection.py [--rounds 5] [--ratio 0.5] [--dtype float32]
"""

import argparse
import copy

import torch
import torchvision
from timing import machine, medians
from torch import nn
from torch.nn.utils import prune

import secateurs as sc


def torch_prune(model: nn.Module, ratio: float) -> None:
    pairs = [(m, "weight") for m in model.modules() if isinstance(m, nn.Conv2d)]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=ratio)


def kthvalue(weights: list[torch.Tensor], ratio: float) -> list[torch.Tensor]:
    magnitudes = torch.cat([w.abs().flatten() for w in weights])
    threshold = magnitudes.kthvalue(round(ratio * magnitudes.numel())).values
    return [w.abs() <= threshold for w in weights]


def sort(weights: list[torch.Tensor], ratio: float) -> list[torch.Tensor]:
    magnitudes = torch.cat([w.abs().flatten() for w in weights])
    threshold = magnitudes.sort().values[round(ratio * magnitudes.numel()) - 1]
    return [w.abs() <= threshold for w in weights]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--skip-slow", action="store_true", help="leave out what takes seconds")
    arguments = parser.parse_args()
    ratio = arguments.ratio
    torch.manual_seed(0)
    model = torchvision.models.resnet50().to(getattr(torch, arguments.dtype))
    weights = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Conv2d)]
    functions = {
        "one read pass, abs().sum()": lambda: [w.abs().sum() for w in weights],
        "secateurs.select": lambda: sc.select(model, ratio, layers="conv2d"),
    }
    if not arguments.skip_slow:
        spare = iter([copy.deepcopy(model) for _ in range(arguments.rounds + 1)])
        functions |= {
            "concatenation + kthvalue": lambda: kthvalue(weights, ratio),
            "concatenation + sort": lambda: sort(weights, ratio),
            "torch global_unstructured": lambda: torch_prune(next(spare), ratio),
        }
    found = medians(functions, arguments.rounds)
    ours = found["secateurs.select"]
    total = sum(w.numel() for w in weights)
    print(f"{total:,} {arguments.dtype} weights, ratio {ratio}; {machine()}\n")
    print("| method | milliseconds | times ours |")
    print("|---|---:|---:|")
    for name, seconds in found.items():
        print(f"| {name} | {1e3 * seconds:.1f} | {seconds / ours:.2f} |")


if __name__ == "__main__":
    main()
