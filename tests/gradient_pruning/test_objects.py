"""A gradient-pruned module stays what it was: its class, its state, its copies, its files."""

import copy
import inspect
import io
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from backward_cases import close, draw, gradients, images, network, trained
from helpers import assert_same, snapshot


def gradient(model: nn.Module, x: Tensor | None = None) -> Tensor:
    return gradients(model, images() if x is None else x, [])[1][0]


def leftovers(model: nn.Module) -> list[tuple[object, ...]]:
    """All that could tell a module that was pruned once from one that never was."""
    return [
        (name, type(m), sorted(vars(m)), sorted(m._buffers), sorted(m._non_persistent_buffers_set))
        for name, m in model.named_modules()
    ]


def test_restore_leaves_nothing_behind() -> None:
    model = network().eval()
    before, weights, dense = leftovers(model), snapshot(model), gradient(model)
    parameters = list(model.parameters())
    sc.gradient_prune(model, 0.5)
    assert leftovers(model) != before
    assert sc.restore(sc.restore(model)) is model
    assert leftovers(model) == before
    assert torch.equal(gradient(model), dense)
    assert_same(snapshot(model), weights)
    assert all(map(lambda a, b: a is b, parameters, model.parameters()))
    assert not hasattr(model.stem, "weight_orig")


def test_a_pruned_module_is_still_an_instance_of_its_class() -> None:
    model = network()
    classes = {name: type(m) for name, m in model.named_modules()}
    text, signature = repr(model), inspect.signature(model.forward)
    keys, parameters = list(model.state_dict()), dict(model.named_parameters())
    sc.gradient_prune(model, 0.5)
    for name, module in model.named_modules():
        assert isinstance(module, classes[name])
        assert type(module).__name__ == classes[name].__name__
        assert type(module).__module__ == classes[name].__module__
    assert type(model.body) is nn.Sequential
    assert type(model.body[1]) is nn.BatchNorm2d
    assert repr(model) == text
    assert inspect.signature(model.forward) == signature
    assert list(model.state_dict()) == keys
    assert {n: id(p) for n, p in model.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "oldest pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "torch.save": _saved,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_pruned_alike_and_restorable_alone(way: str) -> None:
    model = network().eval()
    dense = gradient(model)
    sc.gradient_prune(model, 0.5)
    pruned = gradient(model)
    again = COPIES[way](model)
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    assert torch.equal(gradient(again), pruned)
    sc.restore(again)
    assert torch.equal(gradient(again), dense)
    assert torch.equal(gradient(model), pruned)


def test_a_shallow_copy_shares_its_masks_as_it_shares_its_weights() -> None:
    model, x = nn.Linear(4, 4), torch.randn(2, 4, requires_grad=True)
    dense = gradient(model, x)
    sc.gradient_prune(model, 0.5)
    twin = copy.copy(model)
    assert twin.weight is model.weight
    assert torch.equal(gradient(twin, x), gradient(model, x))
    sc.restore(model)
    assert torch.equal(gradient(twin, x), dense)


def test_a_fresh_process_reads_a_pruned_model() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4, requires_grad=True)
    sc.gradient_prune(model, 0.5)
    code = (
        "import pickle, sys; model, x, expected = pickle.load(sys.stdin.buffer);"
        "model(x).sum().backward(); assert (x.grad == expected).all(); import secateurs;"
        "secateurs.restore(model); print(type(model[0]).__mro__[:2])"
    )
    model(x).sum().backward()
    payload = pickle.dumps((model, x.detach().requires_grad_(), x.grad))
    done = subprocess.run(
        [sys.executable, "-c", code], input=payload, capture_output=True, timeout=120, check=True
    )
    assert (
        b"torch.nn.modules.linear.Linear'>, <class 'torch.nn.modules.module.Module" in done.stdout
    )


def test_replicas_of_data_parallel_are_pruned() -> None:
    """They hold their parameters as plain attributes."""
    model = network().eval()
    sc.gradient_prune(model, 0.5)
    replicas = {id(m): m._replicate_for_data_parallel() for m in model.modules()}
    for module in model.modules():
        replica = replicas[id(module)]
        for name, child in module._modules.items():
            setattr(replica, name, replicas[id(child)])
        for name, parameter in module._parameters.items():
            setattr(replica, name, parameter * 1)
    replica = replicas[id(model)]
    assert not list(replica.parameters())
    assert torch.equal(gradient(replica), gradient(model))
    x = images()
    replica(x).square().sum().backward()
    assert all(p.grad is not None for p in trained(model))
    torch.testing.assert_close(replica.stem.weight_orig, model.stem.weight.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_follow_the_model(dtype: torch.dtype) -> None:
    model = network().eval()
    masks = draw(model)
    moved = sc.apply_masks(copy.deepcopy(model), masks, "gradient").to(dtype)
    later = sc.apply_masks(model.to(dtype), masks, "gradient")
    assert moved.stem.weight_orig.dtype == dtype
    assert moved.stem.weight_backward_mask.dtype == torch.bool
    assert torch.equal(gradient(moved, images(dtype)), gradient(later, images(dtype)))
    assert moved.to("meta").stem.weight_backward_mask.is_meta
    away = nn.Sequential(nn.Linear(4, 4, device="meta"))
    sc.apply_masks(away, draw(nn.Sequential(nn.Linear(4, 4))), "gradient")
    assert away[0].weight_backward_mask.is_meta
    for method in ("half", "double", "float"):
        assert getattr(later, method)().stem.weight_orig.dtype == later.stem.weight.dtype


def test_channels_last_after_pruning() -> None:
    model, x = network().eval(), images()
    sc.gradient_prune(model, 0.5)
    expected = gradient(model)
    model = model.to(memory_format=torch.channels_last)
    close(
        [gradient(model, x.detach().to(memory_format=torch.channels_last).requires_grad_())],
        [expected],
    )


def test_weight_orig_is_the_weight() -> None:
    model = sc.gradient_prune(nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2)), 0.5)
    assert torch.equal(model[0].weight_orig, model[0].weight)
    assert not model[0].weight_orig.requires_grad
    assert torch.equal(model[1].in_proj_weight_orig, model[1].in_proj_weight)
    assert torch.equal(model[1].out_proj.weight_orig, model[1].out_proj.weight)
    assert not hasattr(model[0], "bias_orig")
    model[0].weight = nn.Parameter(model[0].weight_orig.clone())
    x = torch.randn(2, 4, requires_grad=True)
    model[0](x).sum().backward()
    pruned = model[0].weight.detach() * model[0].weight_backward_mask
    torch.testing.assert_close(x.grad, pruned.sum(0).expand(2, 4))


def test_a_checkpoint_loads_into_a_pruned_model() -> None:
    model, other = network().eval(), network().eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(5))
    masks = draw(model)
    sc.apply_masks(model, masks, "gradient").load_state_dict(other.state_dict())
    sc.apply_masks(other, masks, "gradient")
    assert torch.equal(gradient(model), gradient(other))
    fresh = network().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images()), model(images()))


def test_hooks_of_modules_see_outputs_and_pruned_gradients() -> None:
    model, x = network().eval(), images()
    seen: list[Tensor] = []
    model.stem.register_forward_hook(lambda module, args, output: seen.append(output))
    model.stem.register_full_backward_hook(lambda module, of_in, of_out: seen.append(of_in[0]))
    sc.gradient_prune(model, 0.5)
    of_x = gradient(model, x)
    assert seen[0].shape == (2, 4, 6, 6)
    assert torch.equal(seen[1], of_x)


def test_a_part_of_a_model_is_pruned_alone() -> None:
    model = network().eval()
    sc.gradient_prune(model.body, 1.0)
    assert type(model.stem) is nn.Conv2d
    hidden = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    assert not gradient(model.body, hidden).any()
    assert gradient(model).any()
    sc.gradient_prune(model, 1.0)  # around what is pruned already
    assert not gradient(model).any()
    sc.restore(model)
    assert not [m for m in model.modules() if "secateurs" in str(vars(type(m)))]


def test_another_pruning_replaces_the_masks() -> None:
    model, fresh = network().eval(), network().eval()
    for p_prune in (0.9, 0.2, 0.5):
        sc.gradient_prune(model, p_prune)
    assert torch.equal(gradient(model), gradient(sc.gradient_prune(fresh, 0.5)))
    assert [type(m) for m in model.modules()] == [type(m) for m in fresh.modules()]
    assert torch.equal(gradient(sc.global_prune(model, 0.5)), gradient(sc.global_prune(fresh, 0.5)))
    assert type(model) is type(network())


@pytest.mark.parametrize("size", [2, 9])
def test_a_new_parameter_of_another_shape_is_named_not_masked(size: int) -> None:
    model = sc.gradient_prune(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), 0.9)
    model[1].weight, model[1].bias = nn.Parameter(torch.ones(size, 4)), None
    for step in (model, copy.deepcopy(model)):
        with pytest.raises(sc.FailureError, match=r"weight of a Linear has another shape.*again"):
            step(torch.ones(1, 4))
        assert sc.sparsity(step)["1.weight"].zeros == 0
    with torch.no_grad():
        assert torch.equal(model(torch.ones(1, 4)), model[1](model[0](torch.ones(1, 4))))
    with sc.pruned(model, 0.5):
        assert sc.sparsity(model).zeros == (16 + 4 * size) // 2
    sc.gradient_prune(model, 1.0)
    (of_x,) = torch.autograd.grad(model(x := torch.ones(1, 4, requires_grad=True)).sum(), x)
    assert not of_x.any()
    assert [name for name, _ in sc.restore(model).named_buffers()] == []


def test_values_of_another_shape_are_named_also_after_a_call() -> None:
    layer = sc.gradient_prune(nn.Linear(4, 2, bias=False), 0.5)
    layer(torch.ones(1, 4))
    layer.weight.data = torch.ones(3, 4)
    with pytest.raises(sc.FailureError, match=r"weight of a Linear has another shape.*again"):
        layer(torch.ones(1, 4))
