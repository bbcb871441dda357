"""Each known defect of the original implementation of the method, and that ours is without it.

That one ratio could be tried in a run, with nothing written to disk, is for the tests of the sweep.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from backward_cases import draw, oracle, oracle_of, same_as_oracle

KERNELS = {"layers": "conv2d", "granularity": "kernel"}  # what the original pruned


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).double()


def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)


def gradient(model: nn.Module) -> Tensor:
    return torch.autograd.grad(model(x := images()).sum(), x)[0]


def zero_kernels(model: nn.Module) -> int:
    return sum(int((p.flatten(2) == 0).all(2).sum()) for p in model.parameters() if p.dim() == 4)


def test_everything_can_be_pruned() -> None:
    """It raised IndexError at p_prune = 1."""
    model = sc.global_prune(network(), 1.0, **KERNELS)
    assert zero_kernels(model) == 3 * 6 + 6 * 4
    assert not gradient(sc.gradient_prune(network(), 1.0, **KERNELS)).any()


@pytest.mark.parametrize("p_prune", [0.25, 0.5, 0.75])
def test_tied_scores_prune_the_asked_number(p_prune: float) -> None:
    """It pruned nothing where scores tied."""
    model = network()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    assert zero_kernels(sc.global_prune(model, p_prune, **KERNELS)) == round(p_prune * 42)


def test_pruning_twice_keeps_the_originals() -> None:
    """It took the pruned weights for the originals."""
    model, once = network(), network()
    before = copy.deepcopy(model.state_dict())
    sc.global_prune(sc.global_prune(model, 0.7), 0.5)
    sc.global_prune(once, 0.5)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), once.parameters(), strict=True)
    )
    assert torch.equal(model[0].weight_orig, before["0.weight"])
    sc.restore(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weight_orig_does_not_break_deepcopy() -> None:
    model = sc.global_prune(network(), 0.5)
    twin = copy.deepcopy(model)
    assert torch.equal(twin[0].weight_orig, model[0].weight_orig)
    assert twin[0].weight_orig is not model[0].weight_orig
    assert torch.equal(gradient(sc.restore(twin)), gradient(network()))


def test_weight_orig_is_moved_by_half() -> None:
    model = sc.global_prune(network(), 0.5).half()
    assert model[0].weight_orig.dtype == torch.float16
    assert torch.equal(sc.restore(model)[0].weight, network().half()[0].weight)


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_frozen_weights_stay_frozen(prune) -> None:
    """It made them trainable."""
    model = network().requires_grad_(False)
    prune(model, 0.5)
    assert not any(p.requires_grad for p in model.parameters())
    model(images()).sum().backward()
    assert all(p.grad is None for p in model.parameters())
    sc.restore(model)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_an_optimizer_that_exists_keeps_the_parameters(prune) -> None:
    """It replaced them, so that the optimizer trained what the model no longer used."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prune(model, 0.5)
    held = optimizer.param_groups[0]["params"]
    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))
    before = model[0].bias.detach().clone(), model[0].weight.detach().clone()
    model(images()).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].bias, before[0])
    assert not torch.equal(model[0].weight, before[1])


def test_gradient_pruning_of_a_convolution_with_bias() -> None:
    """It crashed."""
    model = network()
    assert model[0].bias is not None
    masks = draw(model, **KERNELS)
    reference = oracle_of(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, images())


def test_subclasses_of_conv2d_are_not_replaced() -> None:
    class Shifted(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    model = Shifted(3, 4, 3).double()
    expected = model(images())
    masks = draw(model, **KERNELS)
    reference = oracle(model, masks)
    sc.apply_masks(model, masks, "gradient")
    assert isinstance(model, Shifted)
    assert torch.equal(model(images()), expected)
    same_as_oracle(model, reference, images())


def test_a_shared_convolution_is_pruned_at_each_of_its_uses_and_counts_once() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(conv, nn.Tanh(), conv).double()
    masks = draw(model, **KERNELS)
    assert [(name, keep.numel()) for name, keep in masks.items()] == [("0.weight", 81)]
    reference = oracle_of(model, masks)
    assert reference[0] is reference[2]
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, images())


def test_the_mask_is_not_drawn_again_in_the_backward_pass() -> None:
    x = images()
    model = sc.gradient_prune(network(), 0.5, p_bern=0.5, seed=0, **KERNELS)
    output = model(x).sum()
    first, second = (torch.autograd.grad(output, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(gradient(model), first)


def test_an_input_in_the_shape_of_the_weight_is_left_alone() -> None:
    """It masked whichever saved tensor had the weight's shape."""
    torch.manual_seed(0)
    model = nn.Conv2d(4, 4, 3, padding=1).double()
    x = torch.randn(4, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    masks = draw(model, **KERNELS)
    reference = oracle(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, x)


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_a_model_without_conv2d(prune) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Conv1d(1, 2, 3))
    prune(model, 0.5)
    assert sc.sparsity(model).ratio == pytest.approx(0.5, abs=0.03)
    with pytest.raises(sc.InvalidArgumentError, match="nothing to prune with layers='conv2d'"):
        prune(nn.Linear(4, 4), 0.5, layers="conv2d")


def test_no_gpu_is_needed() -> None:
    model = network()
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert zero_kernels(sc.global_prune(model, 0.5, **KERNELS)) == 21
    assert not torch.equal(gradient(sc.gradient_prune(model, 0.5, **KERNELS)), gradient(network()))
