import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.attacks import LOSSES
from secateurs.attacks.losses import LINEAR

rows = st.lists(st.floats(-20, 20), min_size=4, max_size=4)


def obvious(name: str, z: list[float], t: int) -> float:
    if name == "ce":
        return z[t] - math.log(sum(math.exp(value) for value in z))
    others = [value for j, value in enumerate(z) if j != t]
    return z[t] - max(others) if name == "margin" else z[t]


@given(st.lists(rows, min_size=1, max_size=4), st.integers(0, 3))
def test_losses_are_their_formulas(logits: list[list[float]], target: int) -> None:
    classes = torch.tensor([(target + i) % 4 for i in range(len(logits))])
    for name, loss in LOSSES.items():
        found = loss(torch.tensor(logits, dtype=torch.float64), classes)
        expected = [obvious(name, z, int(t)) for z, t in zip(logits, classes, strict=True)]
        assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_no_image_depends_on_the_batch(name: str) -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    classes = torch.arange(6) % 5
    (together,) = torch.autograd.grad(LOSSES[name](logits, classes).sum(), logits)
    (alone,) = torch.autograd.grad(LOSSES[name](logits[2:3], classes[2:3]).sum(), logits)
    assert torch.equal(together[2], alone[2])


@pytest.mark.parametrize("name", LOSSES)
def test_linear_losses_are_those_whose_parts_add_up(name: str) -> None:
    first, second = torch.randn(2, 6, 5, dtype=torch.float64)
    classes, loss = torch.arange(6) % 5, LOSSES[name]
    parts = loss(first / 2, classes) + loss(second / 2, classes)
    assert torch.allclose(loss((first + second) / 2, classes), parts) == (name in LINEAR)
