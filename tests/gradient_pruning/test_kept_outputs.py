"""Whole outputs pruned: the backward pass computes the others alone, with the same gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import secateurs as sc
from backward_cases import close, upstream
from secateurs.gradient_pruning.functional import convolution, linear
from secateurs.gradient_pruning.masked_weight import Dual
from secateurs.gradient_pruning.matrix_products import addmm

Operation = Callable[..., Tensor]


def _addmm(x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor, *, masked_gradient: bool):
    return addmm(bias, x, Dual(weight, keep, masked_gradient))


# Each large enough for the smaller product: name, dense, ours, input, weight, dimension, options.
CASES = [
    ("linear", F.linear, linear, (390, 128), (160, 128), 0, ()),
    ("linear-3d", F.linear, linear, (30, 13, 128), (160, 128), 0, ()),
    (
        "columns", lambda x, w, b: torch.addmm(b, x, w), _addmm, (390, 128), (128, 160), 1, (),
    ),
    ("conv1d", torch.conv1d, convolution(1, False), (24, 32, 99), (48, 32, 3), 0, (1, 1)),
    ("conv2d", torch.conv2d, convolution(2, False), (12, 16, 17, 16), (16, 16, 3, 3), 0, (1, 1)),
    (
        "conv2d-strided", torch.conv2d, convolution(2, False), (24, 24, 25, 23), (24, 24, 3, 3), 0,
        ((2, 1), (2, 0), (1, 2)),
    ),
    ("pointwise", torch.conv2d, convolution(2, False), (18, 48, 13, 11), (64, 48, 1, 1), 0, ()),
    (
        "transposed2d", torch.conv_transpose2d, convolution(2, True), (18, 16, 12, 13),
        (16, 24, 3, 3), 1, (2, 1, 1),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.parametrize("masked_gradient", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_gradients_are_those_of_the_masked_product(
    case: tuple, masked_gradient: bool, share: float
) -> None:
    _, dense, ours, shape, weight_shape, dimension, options = case
    torch.manual_seed(0)
    count = weight_shape[dimension]
    tensors = [torch.randn(s, dtype=torch.float64) for s in (shape, weight_shape, (count,))]
    x, weight, bias = (t.requires_grad_() for t in tensors)
    unit = [count if i == dimension else 1 for i in range(weight.dim())]
    keep = (torch.arange(count) % 10 < 10 * share).view(unit)
    output = ours(x, weight, keep, bias, *options, masked_gradient=masked_gradient)
    expected = dense(x, weight, bias, *options)
    assert torch.equal(output, expected)
    flow = upstream(output)
    of_weight, of_bias = torch.autograd.grad(expected, (weight, bias), flow)
    pruned = dense(x, weight.detach() * keep, bias.detach(), *options)
    (of_x,) = torch.autograd.grad(pruned, x, flow)
    of_weight = of_weight * keep if masked_gradient else of_weight
    with FlopCounterMode(display=False) as counter:
        found = torch.autograd.grad(output, (x, weight, bias), flow, retain_graph=True)
    close(list(found), [of_x, of_weight, of_bias])
    close([torch.autograd.grad(output, x, flow)[0]], [of_x])
    if masked_gradient:
        with FlopCounterMode(display=False) as whole:
            torch.autograd.grad(dense(x, weight, bias, *options), (x, weight), flow)
        # The dense count has the forward pass, too: a third.
        assert counter.get_total_flops() < (share + 0.15) * whole.get_total_flops()


@pytest.mark.parametrize("masked_gradient", [False, True])
def test_packed_attention_projections(masked_gradient: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(64, 2, batch_first=True).double()
    x = torch.randn(32, 64, 64, dtype=torch.float64, requires_grad=True)
    every = sc.select(attention, 0.6, granularity="filter").draw()
    sc.apply_masks(attention, every, "gradient")
    wanted = [x, attention.in_proj_weight, attention.out_proj.weight]
    flow = torch.ones(32, 64, 64, dtype=torch.float64)
    found = torch.autograd.grad(attention(x, x, x)[0], wanted, flow)
    sc.apply_masks(
        attention, sc.Masks.from_tensors({n: every[n].clone() for n in every}), "gradient"
    )
    expected = torch.autograd.grad(attention(x, x, x)[0], wanted, flow)
    close(list(found), list(expected))


@pytest.mark.parametrize("name", ["conv2d", "conv2d-strided", "transposed2d"])
def test_channels_stay_last_in_memory(name: str) -> None:
    _, dense, ours, shape, weight_shape, dimension, options = next(c for c in CASES if c[0] == name)
    torch.manual_seed(0)
    last = torch.channels_last
    tensors = [torch.randn(s, dtype=torch.float64) for s in (shape, weight_shape)]
    x, weight = (t.contiguous(memory_format=last).requires_grad_() for t in tensors)
    keep = torch.arange(weight_shape[dimension]) % 3 == 0
    keep = keep.view([-1 if i == dimension else 1 for i in range(4)])
    output = ours(x, weight, keep, None, *options, masked_gradient=True)
    flow = torch.randn_like(output)
    found = torch.autograd.grad(output, (x, weight), flow)
    used = weight.detach() * keep
    (of_x,) = torch.autograd.grad(dense(x, used, None, *options), x, flow)
    (of_weight,) = torch.autograd.grad(dense(x, weight, None, *options), weight, flow)
    close(list(found), [of_x, of_weight * keep])
    assert all(gradient.is_contiguous(memory_format=last) for gradient in found)
