"""Few weights kept in a large linear layer: its backward pass multiplies these alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from backward_cases import close
from secateurs.training import GradientPruner


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(500, 480).double()


def points() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(5, 26, 500, dtype=torch.float64, requires_grad=True)


def is_torchs_own(output: Tensor) -> bool:
    return output.grad_fn.name() == "ViewBackward0"


@pytest.mark.parametrize("weight_gradient", ["dense", "masked"])
def test_gradients_are_those_of_the_masked_product(weight_gradient: str) -> None:
    dense, x, pruned = layer(), points(), layer()
    pruner = GradientPruner(pruned, 0.95, weight_gradient=weight_gradient)
    keep = pruner.masks["weight"]
    output = dense(x)
    flow = torch.randn(output.shape, dtype=torch.float64)
    of_weight, of_bias = torch.autograd.grad(output, (dense.weight, dense.bias), flow)
    of_weight = of_weight * keep if weight_gradient == "masked" else of_weight
    expected = [flow @ (dense.weight.detach() * keep), of_weight, of_bias]
    for number in range(3):
        found = pruned(x)
        assert torch.equal(found, output)
        assert is_torchs_own(found) == (number == 0)  # a pattern is for masks that stay
        close(list(torch.autograd.grad(found, (x, pruned.weight, pruned.bias), flow)), expected)


def test_weights_that_move_and_masks_that_change_are_followed() -> None:
    model, x = layer(), points()
    for seed in range(2):
        masks = sc.select(model, 0.95, score="random", seed=seed).draw()
        sc.apply_masks(model, masks, "gradient")
        for _ in range(3):
            (of_x,) = torch.autograd.grad(model(x).sum(), x)
            expected = (model.weight.detach() * masks["weight"]).sum(0).expand_as(x)
            torch.testing.assert_close(of_x, expected)
            with torch.no_grad():
                model.weight.mul_(-1.5)
    assert not is_torchs_own(model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize("p_prune", [0.8, 0.95])
def test_small_products_and_dense_masks_are_multiplied_with_zeros(p_prune: float) -> None:
    model = sc.gradient_prune(layer(), p_prune)
    x = points() if p_prune < 0.9 else points()[:1]
    assert all(is_torchs_own(model(x)) for _ in range(3))


def test_a_second_derivative_flows_to_kept_weights_alone() -> None:
    model, x = sc.gradient_prune(layer(), 0.95), points()
    found: list[Tensor] = []
    for _ in range(2):
        (of_x,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        found += torch.autograd.grad(of_x.sum(), model.weight)
    assert not is_torchs_own(model(x))
    close(found[:1], found[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_another_dtype_than_its_pattern(dtype: torch.dtype) -> None:
    model, x = layer(), points()
    pruner = GradientPruner(model, 0.95, weight_gradient="masked")
    for _ in range(2):
        model(x)
    x = x.detach().to(dtype).requires_grad_()
    output = model.to(dtype)(x)
    output.sum().backward()
    keep = pruner.masks["weight"]
    expected = (model.weight.detach() * keep).sum(0).expand_as(x)
    torch.testing.assert_close(x.grad, expected, atol=0.05, rtol=0.05)
    assert torch.equal(model.weight.grad != 0, keep)
    assert is_torchs_own(output)  # as in the first call of a layer
