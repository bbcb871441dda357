"""Choose what is pruned by a score of your own: ``python examples/own_score.py``.

A score is a function from a `secateurs.Target` to one number a weight, or one a unit. The units
with the smallest numbers go first; ties, counts and NaN are taken care of.
"""

import torch

import secateurs as sc
from secateurs.evaluation import sweep
from secateurs.report import markdown_table
from secateurs.zoo import load_data, load_model


def relative(target: sc.Target) -> torch.Tensor:
    """|w| divided by the mean |w| of its layer: layers on different scales compete fairly."""
    size = target.weight.abs()
    return size / size.mean()


def largest(target: sc.Target) -> torch.Tensor:
    """The wrong way round: the largest weights go first."""
    return -target.weight.abs()


digits = load_model("digits")
data = load_data("digits", model=digits)
loader = torch.utils.data.DataLoader(data.dataset, batch_size=128)
rows = sweep(
    digits.model,
    loader,
    p_prune=[0, 0.2, 0.4, 0.6, 0.8],
    score=["magnitude", relative, largest],
    progress=False,
)
print(markdown_table(rows))
