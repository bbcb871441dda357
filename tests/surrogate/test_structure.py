"""A surrogate follows its network where layers and parameters are exchanged."""

from collections.abc import Callable

import pytest
import torch
from surrogate_cases import Blocks, blocks, images, input_gradient, oracle
from torch import nn

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


@pytest.mark.parametrize("mode", ["global", "gradient"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("anew", [True, False])
def test_the_next_call_prunes_what_is_there(
    mode: str, change: Callable[[Blocks], None], anew: bool
) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 1.0, mode=mode)
    surrogate(x)
    change(model)
    if anew:
        surrogate.reselect()
        wanted = sc.select(model, 0.6)
        assert surrogate.candidates.chosen.keys() == wanted.chosen.keys()
        assert surrogate.candidates.count == wanted.count
    gradient = input_gradient(surrogate, x)
    # Only what competed when the candidates were chosen is pruned, and all of that.
    assert torch.equal(gradient, input_gradient(oracle(model, surrogate.masks, mode), x))
    with surrogate.frozen():
        assert torch.equal(surrogate(x), oracle(model, surrogate.masks, mode)(x))
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


def test_candidates_stand_while_their_weights_do() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.5, 1.0)
    before = surrogate.candidates
    new_parameter(model)
    surrogate(x)
    assert surrogate.candidates is before
    surrogate.reselect()
    assert not torch.equal(surrogate.candidates.chosen["head.weight"], before.chosen["head.weight"])


def test_nothing_left_to_prune_is_said() -> None:
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
