"""Few kernels kept in a large convolution: its backward pass multiplies these alone."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs as sc
from backward_cases import close
from secateurs.gradient_pruning.kernel_products import SparseKernels
from secateurs.training import GradientPruner


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 3), (1, 1)), ((1, 1), (0, 0)), ((2, 3), (0, 2)), ((4, 1), (5, 0)), ((5, 6), (0, 0))],
)
@pytest.mark.parametrize("kept", [0.0, 0.3])
def test_products_are_those_of_the_masked_convolution(
    kernel: tuple[int, int], padding: tuple[int, int], kept: float
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, *kernel, dtype=torch.float64)
    keep = torch.rand(4, 5) < kept
    masked = (weight * keep[..., None, None]).requires_grad_()
    output = F.conv2d(x, masked, padding=padding)
    flow = torch.randn_like(output)
    of_x, of_weight = torch.autograd.grad(output, (x, masked), flow)
    sparse = SparseKernels(keep, torch.float64)
    found = [one(flow, weight, x.detach(), padding) for one in (sparse.to_input, sparse.to_weight)]
    close(found, [of_x, of_weight * keep[..., None, None]])


def layer(**options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(64, 64, 3, dtype=torch.float64, **options)


def images(size: int = 32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 64, size, size, dtype=torch.float64, requires_grad=True)


def is_torchs_own(output: Tensor) -> bool:
    return output.grad_fn.name() == "ConvolutionBackward0"


@pytest.mark.parametrize("weight_gradient", ["dense", "masked"])
@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": "same", "padding_mode": "circular"}]
)
def test_a_layer_takes_them_once_its_mask_has_stayed(
    options: dict[str, Any], weight_gradient: str
) -> None:
    dense, x, pruned = layer(**options), images(), layer(**options)
    pruner = GradientPruner(pruned, 0.96, weight_gradient=weight_gradient, granularity="kernel")
    keep = pruner.masks["weight"]
    output = dense(x)
    flow = torch.randn_like(output)
    of_weight, of_bias = torch.autograd.grad(output, (dense.weight, dense.bias), flow)
    of_weight = of_weight * keep if weight_gradient == "masked" else of_weight
    with torch.no_grad():
        dense.weight.mul_(keep)
    expected = [*torch.autograd.grad(dense(x), x, flow), of_weight, of_bias]
    for number in range(2):
        found = pruned(x)
        assert torch.equal(found, output)
        assert is_torchs_own(found) == (number == 0)
        close(list(torch.autograd.grad(found, (x, pruned.weight, pruned.bias), flow)), expected)
    (of_x,) = torch.autograd.grad(pruned(x), x, flow, create_graph=True)
    close([of_x], expected[:1])


@pytest.mark.parametrize(
    ("options", "p_prune", "size"),
    [({"stride": 2}, 0.96, 48), ({"dilation": 2}, 0.96, 32), ({}, 0.9, 32), ({}, 0.96, 8)],
)
def test_where_they_do_not_pay_torchs_own_operation_is_taken(
    options: dict[str, Any], p_prune: float, size: int
) -> None:
    model = sc.gradient_prune(layer(**options), p_prune, granularity="kernel")
    assert all(is_torchs_own(model(images(size))) for _ in range(2))


@pytest.mark.parametrize("changed", [{"stride": (2, 2)}, {"stride": 2}, {"dilation": [2, 1]}])
def test_a_stride_that_is_changed_later(changed: dict[str, Any]) -> None:
    model, x = sc.gradient_prune(layer(), 0.96, granularity="kernel"), images()
    for _ in range(2):
        model(x)
    for name, value in changed.items():
        setattr(model, name, value)
    output, masked = model(x), model.weight.detach() * model.weight_backward_mask
    flow = torch.randn_like(output)
    expected = torch.autograd.grad(F.conv2d(x, masked, **changed), x, flow)
    close(list(torch.autograd.grad(output, x, flow)), list(expected))
