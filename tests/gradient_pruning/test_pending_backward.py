import pytest
import torch
from torch import nn

import secateurs as sc


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_pruning_under_a_pending_backward_pass_is_noticed(dtype: torch.dtype) -> None:
    """The graph saved the old weights: a gradient with the new ones would be silently wrong."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    for change in (lambda: sc.global_prune(model, 0.5), lambda: sc.restore(model)):
        loss = model(torch.ones(3, 4, dtype=dtype, requires_grad=True)).sum()
        change()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
