"""Torch's own operations, whose backward pass reads a pruned weight where nothing else watches."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

import secateurs as sc
from backward_cases import close, upstream
from secateurs.gradient_pruning.functional import convolution, linear


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]


def some_of(weight: Tensor) -> Tensor:
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.4


def nodes(output: Tensor) -> set[str]:
    node = output.grad_fn
    assert node is not None
    return {node.name(), *(following.name() for following, _ in node.next_functions if following)}


INPUTS = {
    "matrix": lambda x: x.flatten(0, 1),
    "batches": lambda x: x,
    "more dimensions": lambda x: x[:, None],
    "columns": lambda x: x.transpose(0, 1),  # of these torch calls another function
    "vector": lambda x: x[0, 0],
}


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("masked_gradient", [True, False])
@pytest.mark.parametrize("given", INPUTS)
def test_linear_of_any_input(given: str, masked_gradient: bool, has_bias: bool) -> None:
    x, weight, bias = tensors((2, 3, 5), (4, 5), (4,))
    keep = some_of(weight)
    inputs, added = INPUTS[given](x), bias if has_bias else None
    output = linear(inputs, weight, keep, added, masked_gradient=masked_gradient)
    dense = F.linear(inputs, weight, added)
    assert torch.equal(output, dense)
    flow = upstream(output)
    (of_weight,) = torch.autograd.grad(dense, weight, flow)
    (of_x,) = torch.autograd.grad(F.linear(inputs, weight.detach() * keep), x, flow)
    found = torch.autograd.grad(output, (x, weight), flow)
    close(list(found), [of_x, of_weight * keep if masked_gradient else of_weight])


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_torchs_own_node_is_in_the_graph_unless_something_else_saves_tensors(kind: str) -> None:
    shapes = ((3, 5), (4, 5)) if kind == "linear" else ((2, 2, 5, 5), (4, 2, 3, 3))
    x, weight = tensors(*shapes)
    operation = linear if kind == "linear" else convolution(2, transposed=False)
    keep = some_of(weight)
    assert nodes(operation(x, weight, keep)) & {"MmBackward0", "ConvolutionBackward0"}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        assert not nodes(operation(x, weight, keep)) & {"MmBackward0", "ConvolutionBackward0"}


def test_the_mask_is_that_of_the_forward_pass_or_an_error() -> None:
    x, weight = tensors((3, 5), (4, 5))
    keep = some_of(weight)
    output = linear(x, weight, keep)
    keep.fill_(True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation: the mask"):
        output.sum().backward()


def test_a_graph_is_used_once_unless_it_is_retained() -> None:
    x, weight = tensors((3, 5), (4, 5))
    output = linear(x, weight, some_of(weight)).sum()
    output.backward()
    with pytest.raises(RuntimeError, match="second time"):
        output.backward()


def test_forward_mode_is_refused_not_dense() -> None:
    model = sc.gradient_prune(nn.Linear(5, 4), 0.5)
    x = torch.randn(3, 5)
    with (
        forward_ad.dual_level(),
        pytest.raises((RuntimeError, NotImplementedError), match="forward"),
    ):
        model(forward_ad.make_dual(x, torch.ones_like(x)))


def test_the_first_layer_masks_its_weights_gradient_alone() -> None:
    x, weight = tensors((3, 5), (4, 5))
    keep = some_of(weight)
    output = linear(x.detach(), weight, keep, masked_gradient=True)
    (found,) = torch.autograd.grad(output.sum(), weight)
    torch.testing.assert_close(found, x.detach().sum(0).expand(4, 5) * keep)


def test_frozen_weights_pass_on_the_pruned_gradient_alone() -> None:
    x, weight = tensors((2, 2, 5, 5), (4, 2, 3, 3))
    keep, frozen = some_of(weight), weight.detach()
    output = convolution(2, transposed=False)(x, frozen, keep, None, 1, 1)
    (found,) = torch.autograd.grad(output.sum(), x)
    (expected,) = torch.autograd.grad(F.conv2d(x, frozen * keep, None, 1, 1).sum(), x)
    torch.testing.assert_close(found, expected)


def test_large_weights_of_one_model_share_memory_and_do_not_mix() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(300, 260, dtype=torch.float64), nn.Linear(260, 280, dtype=torch.float64)]
    model = nn.Sequential(*layers)
    masks = sc.select(model, 0.5).draw()
    sc.apply_masks(model, masks, "gradient")
    first, second = (m.weight.detach() * masks[f"{i}.weight"] for i, m in enumerate(layers))
    copied = copy.deepcopy(model)

    def found(seed: int) -> Tensor:
        x = torch.full((2, 300), float(seed), dtype=torch.float64, requires_grad=True)
        for _ in range(3):
            x.grad = None
            (model if seed % 2 else copied)(x).sum().backward()
        assert x.grad is not None
        return x.grad

    expected = torch.ones(2, 280, dtype=torch.float64) @ second @ first
    with ThreadPoolExecutor(4) as threads:
        for gradient in threads.map(found, range(8)):
            torch.testing.assert_close(gradient, expected)
    kept = [part.weight.grad for part in layers]
    assert all(torch.isfinite(part).all() for part in kept if part is not None)
