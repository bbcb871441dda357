"""Prune a network, look at it, put it back: ``python examples/prune_and_restore.py``.

Uses the small digits network that comes with the package; the first run trains it, which takes a
few seconds.
"""

import copy

import torch

import secateurs as sc
from secateurs.zoo import load_model

model = load_model("digits").model
before = copy.deepcopy(model.state_dict())
weight = model.conv2.weight

# In place, whole model at once. The Parameter stays the same object.
sc.global_prune(model, p_prune=0.5)
print(sc.sparsity(model))
assert model.conv2.weight is weight

# Pruning again starts from the original weights: this is 30%, not 30% of what was left.
sc.global_prune(model, p_prune=0.3, granularity="kernel", layers="conv")
print(f"30% of the kernels: {sc.sparsity(model, layers='conv').ratio:.1%} of the convolutions")

# While a weight is pruned, its original values are one attribute away.
gone = int(((model.conv2.weight == 0) & (model.conv2.weight_orig != 0)).sum())
print(f"conv2: {gone} weights are zero that were not")

# Half of the candidates, another half with every seed.
for seed in (0, 1):
    sc.global_prune(model, p_prune=0.4, p_bern=0.5, seed=seed)
    print(f"p_bern=0.5, seed {seed}: {sc.sparsity(model).ratio:.1%}")

# For the length of a block, also when the block raises.
sc.restore(model)
with sc.pruned(model, p_prune=0.9):
    print(f"inside the block: {sc.sparsity(model).ratio:.1%}")

same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
print(f"afterwards, bit for bit as before: {same}")
assert same
