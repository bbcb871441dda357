"""The operations behind gradient pruning, each against a gradient written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from backward_cases import close, upstream
from secateurs import InvalidArgumentError
from secateurs.gradient_pruning import functional
from secateurs.gradient_pruning.attention import attention

CONVOLUTIONS = {
    1: (torch.conv1d, torch.conv_transpose1d),
    2: (torch.conv2d, torch.conv_transpose2d),
    3: (torch.conv3d, torch.conv_transpose3d),
}


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [t.to(dtype).requires_grad_() for t in drawn]


def some_of(weight: Tensor) -> Tensor:
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.4


def by_hand(dense, x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor, *options: object):
    """Output and gradients to x, weight and bias, from two dense operations."""
    output = dense(x, weight, bias, *options)
    flow = upstream(output)
    of_weight, of_bias = torch.autograd.grad(output, (weight, bias), flow)
    pruned = dense(x, weight.detach() * keep, None, *options)
    (of_x,) = torch.autograd.grad(pruned, x, flow)
    return output, [of_x, of_weight, of_bias]


def ours(masked, x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor, *options: object):
    output = masked(x, weight, keep, bias, *options)
    return output, list(torch.autograd.grad(output, (x, weight, bias), upstream(output)))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5)])
def test_linear(shape: tuple[int, ...]) -> None:
    x, weight, bias = tensors(shape, (4, 5), (4,))
    keep = some_of(weight)
    output, found = ours(functional.linear, x, weight, keep, bias)
    expected, gradients = by_hand(F.linear, x, weight, keep, bias)
    assert torch.equal(output, expected)
    close(found, gradients)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolution(dims: int, transposed: bool) -> None:
    x, weight, bias = tensors((2, 4, *[5] * dims), (4, 2, *[3] * dims), (4,))
    keep = some_of(weight)
    # Positional, in the order of the torch function: the two differ after groups.
    rest = (2, 1, 1, 2, 1) if transposed else (2, 1, 1, 2)
    dense = CONVOLUTIONS[dims][transposed]
    output, found = ours(functional.convolution(dims, transposed), x, weight, keep, bias, *rest)
    expected, gradients = by_hand(dense, x, weight, keep, bias, *rest)
    assert torch.equal(output, expected)
    close(found, gradients)


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (4, 2, 1, 1), (1, 1, 1, 1)])
def test_a_mask_of_units_is_spread_over_the_weight(shape: tuple[int, ...]) -> None:
    x, weight, bias = tensors((2, 2, 5, 5), (4, 2, 3, 3), (4,))
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    _, found = ours(functional.convolution(2, False), x, weight, keep, bias)
    _, expected = ours(functional.convolution(2, False), x, weight, keep.expand(weight.shape), bias)
    close(found, expected)


@pytest.mark.parametrize(
    ("padding", "stride"), [("same", 2), ("same", [1, 2]), ("full", 1), ("SAME", 1)]
)
def test_paddings_that_torch_refuses_are_refused(padding: str, stride: object) -> None:
    x, weight, bias = tensors((2, 2, 5, 5), (4, 2, 3, 3), (4,))
    with pytest.raises((RuntimeError, ValueError)):
        torch.conv2d(x, weight, bias, stride, padding)
    with pytest.raises(InvalidArgumentError, match=f"padding='{padding}' with stride"):
        functional.convolution(2, False)(x, weight, some_of(weight), bias, stride, padding)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16])
def test_autocast_casts_as_the_dense_operation_does(dtype: torch.dtype, given: torch.dtype) -> None:
    x, weight, bias = tensors((2, 2, 5, 5), (4, 2, 3, 3), (4,), dtype=given)
    keep = some_of(weight)
    with torch.autocast("cpu", dtype):
        output, found = ours(functional.convolution(2, False), x, weight, keep, bias)
        expected, gradients = by_hand(torch.conv2d, x, weight, keep, bias)
    assert output.dtype == (torch.float64 if given == torch.float64 else dtype)
    assert torch.equal(output, expected)
    assert [g.dtype for g in found] == [given] * 3
    close(found, gradients)


def test_only_what_is_asked_for_is_computed() -> None:
    x, weight, bias = tensors((3, 5), (4, 5), (4,))
    keep = some_of(weight)
    flow = torch.ones(3, 4, dtype=torch.float64)
    (of_x,) = torch.autograd.grad(
        functional.linear(x, weight.detach(), keep, bias.detach()), x, flow
    )
    torch.testing.assert_close(of_x, flow @ (weight.detach() * keep))
    output = functional.linear(x.detach(), weight, keep)
    output.backward(flow)
    torch.testing.assert_close(weight.grad, flow.T @ x.detach())
    assert not functional.linear(x.detach(), weight.detach(), keep).requires_grad


def test_no_mask_of_floats_is_kept_for_the_backward_pass() -> None:
    """The graph holds the weight itself and a mask of one byte an element, no masked copy."""
    x, weight, bias = tensors((3, 5), (4, 5), (4,))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        functional.linear(x, weight, some_of(weight), bias)
    assert {t.dtype for t in kept} == {torch.float64, torch.bool}
    assert {t.data_ptr() for t in kept if t.is_floating_point()} == {
        x.data_ptr(),
        weight.data_ptr(),
    }


def test_changing_the_weight_between_the_passes_is_an_error() -> None:
    x, weight, bias = tensors((3, 5), (4, 5), (4,))
    output = functional.linear(x, weight, some_of(weight), bias)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("masked_gradient", [False, True])
@pytest.mark.parametrize("kind", ["linear", "convolution", "transposed"])
def test_the_gradient_of_the_gradient_is_that_of_the_gradient(
    kind: str, masked_gradient: bool
) -> None:
    """Numerically: differentiate the gradient function itself, mask and all."""
    if kind == "linear":
        x, weight, bias = tensors((3, 5), (4, 5), (4,))
        operation = functional.linear
    else:
        x, weight, bias = tensors((2, 2, 3, 3), (2, 2, 2, 2), (2,))
        operation = functional.convolution(2, kind == "transposed")
    keep = some_of(weight)
    assert torch.autograd.gradgradcheck(
        lambda *t: operation(t[0], t[1], keep, t[2], masked_gradient=masked_gradient),
        (x, weight, bias),
    )


def test_each_image_has_its_own_gradient_under_vmap() -> None:
    x, weight, bias = tensors((3, 2, 5, 5), (4, 2, 3, 3), (4,))
    keep = some_of(weight)
    operation = functional.convolution(2, False)

    def loss(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return operation(image, weight, keep, bias).square().sum()

    found = torch.func.vmap(torch.func.grad(loss, (0, 1, 2)), (0, None, None))(x, weight, bias)
    for i, image in enumerate(x):
        expected = torch.autograd.grad(loss(image, weight, bias), (x, weight, bias))
        close([f[i] for f in found], [expected[0][i], *expected[1:]])


def test_attention_without_masks_is_that_of_torch() -> None:
    x, packed, bias, out, out_bias = tensors((3, 2, 4), (12, 4), (12,), (4, 4), (4,))
    arguments = (x, x, x, 4, 2, packed, bias, None, None, False, 0.0, out, out_bias)
    for need_weights in (True, False):
        found = attention(*arguments, need_weights=need_weights)
        expected = F.multi_head_attention_forward(*arguments, need_weights=need_weights)
        assert torch.equal(found[0], expected[0])
