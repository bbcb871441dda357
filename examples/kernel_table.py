"""What 30% means at each granularity: ``python examples/kernel_table.py``.

Published tables of one-shot pruning count kernels, not weights. 30% of a network's kernels are not
30% of its weights, since a 1 x 1 kernel is one weight and a 3 x 3 kernel is nine. The weights here
are random, so nothing is downloaded: the counts are those of the real networks, the ratios of
weights are not.
"""

import torch

import secateurs as sc
from secateurs.zoo import load_model

for name in ("resnet18", "resnet50"):
    torch.manual_seed(0)
    model = load_model(name, weights="random").model
    weights = [target.weight for target in sc.find_targets(model, layers="conv2d")]
    points = sum(weight.numel() for weight in weights if weight.shape[2:] == (1, 1))
    kernels = sum(weight.shape[0] * weight.shape[1] for weight in weights)
    print(f"{name}: {points / kernels:.1%} of the kernels are 1 x 1")
    for granularity in ("weight", "kernel", "filter"):
        candidates = sc.select(model, 0.3, granularity=granularity, layers="conv2d")
        print(
            f"  30% by {granularity:6}: {candidates.count:>9,} of {candidates.total:>10,} units, "
            f"{candidates.draw().sparsity:.1%} of the weights"
        )
