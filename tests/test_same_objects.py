"""Pruning changes numbers in place: optimizers, copies, checkpoints and compilers do not notice."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from helpers import CASES, Case, assert_same, every_case, snapshot
from secateurs import (
    LostTrainingWarning,
    Masks,
    apply_masks,
    global_prune,
    make_permanent,
    restore,
    select,
    sparsity,
)


def half_of(model: nn.Module) -> Masks:
    return select(model, 0.5).draw()


@every_case
def test_the_parameters_stay_the_same_objects_and_as_they_are(case: Case) -> None:
    model = case.model()

    def seen() -> list[object]:
        return [
            (n, id(p), p.data_ptr(), p.dtype, p.stride(), p.requires_grad, p.is_leaf, type(p))
            for n, p in model.named_parameters(remove_duplicate=False)
        ]

    before, keys = seen(), list(model.state_dict())
    for step in (lambda: apply_masks(model, half_of(model)), lambda: restore(model)):
        step()
        assert seen() == before
        assert list(model.state_dict()) == keys


def test_frozen_weights_are_pruned_and_stay_frozen() -> None:
    """The original code made them trainable."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(False)
    model[1].weight.requires_grad_(True)
    global_prune(model, 0.5)
    assert sparsity(model).ratio == 0.5
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, False]
    restore(model)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, False]


@pytest.mark.parametrize("build", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizer_that_exists_goes_on(build: type[torch.optim.Optimizer]) -> None:
    """The original code's new parameters were unknown to it."""
    model = nn.Linear(4, 4)
    optimizer = build(model.parameters(), lr=0.1)
    global_prune(model, 0.5)
    before = model.weight.detach().clone()
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert bool((model.weight != before).all())
    assert model.weight.grad is not None
    with pytest.warns(LostTrainingWarning):
        restored = restore(model).weight.detach().clone()
    optimizer.zero_grad()
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert bool((model.weight != restored).all())


@every_case
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_of_a_pruned_model_are_pruned_and_restorable(case: Case, way: str) -> None:
    """The original code's weight_orig broke deepcopy."""
    model = case.model()
    if way == "pickle" and any(p.element_size() == 1 for p in model.parameters()):
        pytest.skip("torch pickles float8 only by torch.save")
    before = snapshot(model)
    apply_masks(model, half_of(model))
    if way == "deepcopy":
        other = copy.deepcopy(model)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert_same(snapshot(other), snapshot(model))
    torch.testing.assert_close(case.run(other), case.run(model))  # memory may be laid out anew
    restore(other)
    assert_same(snapshot(other), before)
    assert sparsity(model) != sparsity(other) or case.name == "ties"  # the first is still pruned
    assert_same(snapshot(restore(model)), before)


@every_case
def test_the_state_dict_of_a_pruned_model_loads_into_a_fresh_one(case: Case) -> None:
    model = case.model()
    keys = list(model.state_dict())
    apply_masks(model, half_of(model))
    assert list(model.state_dict()) == keys
    fresh = case.build()
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert_same(snapshot(fresh), snapshot(model))
    assert sparsity(fresh) == sparsity(model)


@every_case
def test_permanent_weights_have_no_originals(case: Case) -> None:
    model = case.model()
    apply_masks(model, half_of(model))
    pruned = snapshot(model)
    assert make_permanent(model) is model
    assert_same(snapshot(model), pruned)
    assert_same(snapshot(restore(model)), pruned)
    assert all("_orig" not in name for name, _ in model.named_buffers())


def test_gradients_and_hooks_are_left_alone() -> None:
    model = nn.Linear(4, 4)
    calls: list[int] = []
    model.weight.register_hook(lambda grad: calls.append(1))
    model(torch.ones(1, 4)).sum().backward()
    grad = model.weight.grad
    restore(global_prune(model, 0.5))
    assert model.weight.grad is grad
    model(torch.ones(1, 4)).sum().backward()
    assert len(calls) == 2


def test_a_stale_graph_is_an_error_not_a_wrong_gradient() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    y = model(torch.ones(1, 4)).sum()
    global_prune(model, 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def compiled(case: Case, model: nn.Module) -> nn.Module:
    torch.compiler.reset()
    model.requires_grad_(False)
    return torch.compile(model, backend="eager", fullgraph=True)


COMPILED = ("conv2d", "transposed2d", "attention", "tied", "shared", "channels-last", "mixed")


@pytest.mark.parametrize("case", [c for c in CASES if c.name in COMPILED], ids=lambda c: c.name)
def test_a_compiled_model_is_pruned_without_a_new_compilation(case: Case) -> None:
    model = case.model()
    fast = compiled(case, model)
    dense = case.run(fast)
    torch.testing.assert_close(dense, case.run(model))  # attention takes another path when eager
    with torch.compiler.set_stance("fail_on_recompile"):
        for p_prune in (0.9, 0.5):
            global_prune(model, p_prune)
            torch.testing.assert_close(case.run(fast), case.run(model))
            assert not torch.allclose(case.run(fast), dense)
        restore(model)
        assert torch.equal(case.run(fast), dense)


def test_a_model_compiled_while_it_is_pruned_can_be_restored() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(3, 4)
    dense = model(x)
    torch.compiler.reset()
    fast = torch.compile(global_prune(model, 0.5), backend="eager", fullgraph=True)
    assert not torch.equal(fast(x), dense)
    with torch.compiler.set_stance("fail_on_recompile"):
        restore(model)
        assert torch.equal(fast(x), dense)


def test_a_compiled_model_can_be_handed_in() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    fast = torch.compile(model, backend="eager")
    before = snapshot(model)
    assert global_prune(fast, 0.5) is fast
    assert sparsity(model).ratio == 0.5
    restore(fast)
    assert_same(snapshot(model), before)
