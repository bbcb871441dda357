"""After a first call, modules that only call others run without the function mode."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import secateurs as sc
from backward_cases import close, draw, gradients, images, network, oracle_of, trained


class Counting(TorchFunctionMode):
    """Counts the calls of functions that reach a mode outside of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Later(nn.Module):
    """Hands its layer's weight to a function itself, once it is told to."""

    def __init__(self, use=lambda x, layer: F.linear(x, layer.weight, layer.bias)):
        super().__init__()
        self.layer, self.use, self.now = nn.Linear(4, 4), use, False

    def forward(self, x: Tensor) -> Tensor:
        with Counting():  # left after our mode was entered, and before it is left
            return self.use(x, self.layer) if self.now else self.layer(x)


def points() -> Tensor:
    return torch.linspace(-1, 1, 12).view(3, 4).double().requires_grad_()


def test_later_calls_give_what_the_first_gives() -> None:
    model, x = network().eval(), images()
    masks = draw(model)
    _, expected = gradients(oracle_of(model, masks), x, trained(oracle_of(model, masks))[:0])
    sc.apply_masks(model, masks, "gradient")
    first = gradients(model, x, trained(model))[1]
    again = gradients(model, x, trained(model))[1]
    assert all(map(torch.equal, first, again))
    close(first[:1], expected)
    copied = gradients(copy.deepcopy(model), x, [])[1]
    assert torch.equal(copied[0], first[0])


def test_a_weight_that_a_later_call_hands_over_is_pruned() -> None:
    torch.manual_seed(0)
    model, x = sc.gradient_prune(Later().double(), 0.5), points()
    first = [gradients(model, x, trained(model))[1] for _ in range(2)]
    model.now = True
    later = [gradients(model, x, trained(model))[1] for _ in range(2)]
    for found in (first[1], *later):
        close(found, first[0])
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_weight_that_a_later_call_misuses_is_refused() -> None:
    model = sc.gradient_prune(Later(lambda x, layer: x * layer.weight.sum()).double(), 0.5)
    for _ in range(2):
        model(points())
    model.now = True
    for _ in range(2):
        with pytest.raises(sc.FailureError, match=r"^Later hands layer\.weight to sum"):
            model(points())
    assert not torch.overrides._get_current_function_mode_stack()
