"""A surrogate follows its network where layers and parameters are exchanged."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from surrogate_cases import Blocks, blocks, images, input_gradient, oracle
from torch import Tensor, nn

import secateurs as sc


def new_head(model: Blocks) -> None:
    torch.manual_seed(5)
    model.head = nn.Linear(6, 5)


def larger_head(model: Blocks) -> None:
    torch.manual_seed(5)
    model.head = nn.Linear(6, 9)


def new_parameter(model: Blocks) -> None:
    model.head.weight = nn.Parameter(torch.arange(30.0).reshape(5, 6) - 15)


def larger_parameter(model: Blocks) -> None:
    model.head.weight = nn.Parameter(torch.arange(48.0).reshape(8, 6) - 24)
    model.head.bias = None


def another_layer(model: Blocks) -> None:
    torch.manual_seed(5)
    model.block.append(nn.Conv2d(6, 6, 1))


def one_less(model: Blocks) -> None:
    del model.block[2]


def another_place(model: Blocks) -> None:
    model.stem[0], model.block[0] = nn.Conv2d(3, 6, 3), model.stem[0]
    model.stem.insert(0, nn.Identity())
    model.block[0] = nn.Conv2d(6, 6, 3)


def loaded(model: Blocks) -> None:
    other = blocks().requires_grad_(False)
    other.head.weight.mul_(-2)
    model.load_state_dict(other.state_dict(), assign=True)


def wrapped(model: Blocks) -> None:
    model.head = nn.Sequential(nn.Dropout(0.0), model.head)


CHANGES: list[Callable[[Blocks], None]] = [
    new_head, larger_head, new_parameter, larger_parameter, another_layer, one_less,
    another_place, loaded, wrapped,
]  # fmt: skip


@pytest.mark.parametrize("prune_type", ["global", "gradient"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("anew", [True, False])
def test_the_next_call_prunes_the_current_layers(
    prune_type: str, change: Callable[[Blocks], None], anew: bool
) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 1.0, prune_type=prune_type)
    surrogate(x)
    change(model)
    if anew:
        surrogate.reselect()
        wanted = sc.select(model, 0.6)
        assert surrogate.candidates.chosen.keys() == wanted.chosen.keys()
        assert surrogate.candidates.count == wanted.count
    gradient = input_gradient(surrogate, x)
    # Only what competed when the candidates were chosen is pruned, and all of that.
    assert torch.equal(gradient, input_gradient(oracle(model, surrogate.masks, prune_type), x))
    with surrogate.frozen():
        assert torch.equal(surrogate(x), oracle(model, surrogate.masks, prune_type)(x))
    assert "head.weight" in surrogate.masks or change is wrapped
    assert all(model.get_parameter(t.name) is t.parameter for t in surrogate.targets)


@pytest.mark.parametrize("change", ["tie", "untie"])
def test_weights_that_are_tied_or_untied_later(change: str) -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), torch.rand(2, 6)
    if change == "untie":
        model[2].weight = model[0].weight
    surrogate = sc.Diversified(model, 0.5, 0.5)
    surrogate(x)
    if change == "tie":
        model[2].weight = model[0].weight
    else:
        model[2].weight = nn.Parameter(torch.eye(6))
    assert torch.equal(surrogate(x), oracle(model, surrogate.masks)(x))


def test_candidates_stay_as_long_as_their_weights() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.5, 1.0)
    before = surrogate.candidates
    new_parameter(model)
    surrogate(x)
    assert surrogate.candidates is before
    surrogate.reselect()
    assert not torch.equal(surrogate.candidates.chosen["head.weight"], before.chosen["head.weight"])


def test_nothing_left_to_prune_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    surrogate = sc.Diversified(model, 0.5, 0.5)
    model[0] = nn.Identity()
    with pytest.raises(sc.InvalidArgumentError, match="nothing to prune"):
        surrogate(torch.ones(1, 4))


def test_a_backward_pass_after_a_change_sees_its_own_masks() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    leaf = x.clone().requires_grad_()
    loss, old = surrogate(leaf).square().sum(), model.head.weight
    wanted = oracle(model, surrogate.masks)
    mask = surrogate.masks["head.weight"]
    larger_head(model)
    surrogate(x)
    loss.backward()
    assert torch.equal(leaf.grad, input_gradient(wanted, x))
    assert old.grad is not None
    assert not old.grad[~mask].any()


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_a_network_that_was_pruned_meanwhile_is_refused(prune: Any) -> None:
    model, x = blocks(), images()
    surrogate, other = (sc.Diversified(model, 0.6, 0.5) for _ in range(2))
    surrogate(x)
    prune(model, 0.3)
    with pytest.raises(sc.InvalidArgumentError, match="restore"):
        surrogate(x)
    sc.restore(model)
    other(x)
    assert torch.equal(surrogate(x), other(x))


def for_a_while(model: nn.Module, p: float) -> None:
    with sc.pruned(model, p):
        assert sc.sparsity(model).ratio == pytest.approx(p, abs=0.01)


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune, for_a_while])
def test_a_network_that_is_pruned_inside_of_a_draw(prune: Any) -> None:
    """What is kept belongs to the parameters, not to what this thread finds in their place."""
    model, x = blocks(), images()
    surrogate, before = sc.Diversified(model, 0.6, 0.5), model.head.weight.detach().clone()
    with surrogate.pruned() as network:
        for p in (0.3, 0.5):
            prune(network, p)
        if prune is not for_a_while:
            assert sc.sparsity(model).ratio == pytest.approx(0.5, abs=0.01)
            with pytest.raises(sc.InvalidArgumentError, match="restore"):
                surrogate(x)
    sc.restore(model)
    assert torch.equal(model.head.weight, before)
    assert torch.equal(surrogate(x), oracle(model, surrogate.masks)(x))


class Within(nn.Module):
    """Calls a layer with other weights, as meta-learning does."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner, self.outer, self.kind = nn.Linear(6, 6), nn.Linear(6, 6), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "own":
            given = dict(self.inner.named_parameters())
        elif self.kind == "other":
            given = dict(self.outer.named_parameters())
        else:
            given = {name: p * 2 for name, p in self.inner.named_parameters()}
        return self.outer(torch.func.functional_call(self.inner, given, (x,)) + self.inner(x))


@pytest.mark.parametrize("method", [False, True])
@pytest.mark.parametrize("kind", ["own", "other", "twice"])
def test_networks_that_lend_their_layers_other_weights(kind: str, method: bool) -> None:
    torch.manual_seed(0)
    model, x = Within(kind), torch.rand(2, 6)
    parameters = dict(model.named_parameters())
    surrogate = sc.Diversified(model, 0.6, 0.5)
    with surrogate.pruned() if method else nullcontext():
        found = model(x) if method else surrogate(x)
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert all(type(m._parameters) is dict for m in model.modules())
    inner, outer = (
        {
            k: p * surrogate.masks[f"{n}.{k}"] if k == "weight" else p
            for k, p in m.named_parameters()
        }
        for n, m in model.named_children()
    )
    # What the layer is lent is taken as it is; its own weight is the one that was drawn.
    lent = {"own": inner, "other": dict(model.outer.named_parameters())}.get(kind)
    lent = lent or {name: p * 2 for name, p in model.inner.named_parameters()}
    call = torch.func.functional_call
    hidden = call(model.inner, lent, (x,)) + call(model.inner, inner, (x,))
    torch.testing.assert_close(found, call(model.outer, outer, (hidden,)))
