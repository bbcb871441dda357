import math

import pytest
import torch
from torch import nn

from secateurs import InvalidArgumentError
from secateurs.training import KnowledgeDistillation


def softmax(values: list[float]) -> list[float]:
    total = sum(map(math.exp, values))
    return [math.exp(value) / total for value in values]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_that_of_the_formula(weight: float, temperature: float) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).double()
    images, labels = torch.randn(5, 4).double(), torch.tensor([0, 2, 1, 1, 0])
    logits = torch.randn(5, 3, requires_grad=True)
    loss = KnowledgeDistillation(dense, weight, temperature)(images, logits, labels)
    wanted = dense[1](images)
    expected = 0.0
    for z, v, label in zip(logits.tolist(), wanted.tolist(), labels.tolist(), strict=True):
        p, q = (softmax([one / temperature for one in values]) for values in (v, z))
        soft = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected += (weight - 1) * math.log(softmax(z)[label]) + weight * temperature**2 * soft
    assert loss.item() == pytest.approx(expected / 5, rel=1e-5)
    loss.backward()
    assert logits.grad is not None and all(p.grad is None for p in dense.parameters())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [((1.5, 4.0), "^weight must be from 0 to 1"), ((0.5, -1), "^temperature must be .* above 0")],
)
def test_numbers_out_of_range(numbers: tuple[float, float], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        KnowledgeDistillation(nn.Linear(2, 2), *numbers)
