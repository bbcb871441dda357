"""Beside torch.nn.utils.prune, whose convention for counts this package follows."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from secateurs import select


@pytest.mark.parametrize("p_prune", [0.01, 0.3, 0.5, 0.77, 0.999, 1.0])
def test_without_ties_the_masks_are_those_of_torch_prune(p_prune: float) -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 5, 2), nn.Linear(5, 7))

    ours, theirs = build(), build()
    assert len(torch.cat([m.weight.abs().flatten() for m in ours]).unique()) == 108 + 40 + 35
    prune.global_unstructured(
        [(module, "weight") for module in theirs], prune.L1Unstructured, amount=p_prune
    )
    masks = select(ours, p_prune).draw()
    for i, module in enumerate(theirs):
        assert torch.equal(masks[f"{i}.weight"], module.weight_mask.bool())

    masks = select(ours, p_prune, scope="layer").draw()
    for i, module in enumerate(build()):
        prune.l1_unstructured(module, "weight", p_prune)
        assert torch.equal(masks[f"{i}.weight"], module.weight_mask.bool())
