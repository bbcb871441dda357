"""Training under a pruned backward pass: refreshed, held, resumed; bad arguments."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn, optim
from training_cases import loss_of, network

import secateurs as sc
from secateurs.gradient_pruning.modules import gradient_masks
from secateurs.training import GradientPruner, OneShot, Pruner, gradient_pruner


def trained(model: nn.Module, pruner: GradientPruner, optimizer: optim.Optimizer, steps: int):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        pruner.step()


def sgd(model: nn.Module) -> optim.Optimizer:
    return optim.SGD(model.parameters(), lr=0.1)


def test_masks_are_refreshed_from_the_weights_of_the_moment() -> None:
    model = network()
    pruner = GradientPruner(model, 0.5, refresh=2)
    first = pruner.masks
    with torch.no_grad():
        model[0].weight[:1] *= 1000
    pruner.step()
    assert pruner.masks is first
    pruner.step()
    assert pruner.masks == sc.select(sc.restore(model), 0.5).draw()
    assert pruner.masks != first
    assert (pruner.steps, pruner.draws) == (2, 2)


def test_draws_differ_and_depend_on_the_seed_alone() -> None:
    def three(seed: int) -> list[sc.Masks]:
        pruner, found = GradientPruner(network(), 0.6, 0.5, refresh=1, seed=seed), []
        for _ in range(3):
            found.append(pruner.masks)
            pruner.step()
        return found

    assert three(1) == three(1)
    assert three(1) != three(2)
    assert len({str(dict(masks)) for masks in three(1)}) == 3


@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_masked_weight_gradients_leave_pruned_weights_as_they_are(granularity: str) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    options: Any = {"granularity": granularity, "scope": "layer"}
    pruner = GradientPruner(model, 0.5, weight_gradient="masked", **options)
    trained(model, pruner, sgd(model), 3)
    for name in pruner.masks:
        now, keep = model.state_dict()[name], pruner.masks[name]
        assert torch.equal(now[~keep], before[name][~keep])
        assert not torch.equal(now, before[name])


def test_sparse_forward_and_backward() -> None:
    model = network()
    optimizer = sgd(model)
    forward = Pruner(model, optimizer, OneShot(0.5, at=2))
    with GradientPruner(model, 0.6, refresh=3) as backward:
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            forward.step()  # which takes the masks of the backward pass off when it prunes
            backward.step()
            assert model[0].weight_backward_mask is not None
    assert sc.sparsity(model).ratio == pytest.approx(0.5, abs=0.01)
    assert not hasattr(model[0], "weight_backward_mask")


def test_resumed_training_is_the_same() -> None:
    def made() -> tuple[nn.Module, optim.Optimizer, GradientPruner]:
        torch.manual_seed(0)
        model = network()
        options: Any = {"refresh": 2, "weight_gradient": "masked", "granularity": "filter"}
        return model, sgd(model), GradientPruner(model, 0.5, 0.5, seed=3, **options)

    model, optimizer, pruner = made()
    trained(model, pruner, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), pruner.state_dict()))
    trained(model, pruner, optimizer, 4)
    other, its_optimizer, resumed = made()
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    trained(other, resumed, its_optimizer, 4)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    assert resumed.masks == pruner.masks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p_prune": 1.5}, "p_prune"),
        ({"refresh": 0}, "refresh"),
        ({"weight_gradient": "sparse"}, "weight_gradient must be .*dense.*masked"),
        ({"p_bern": 0.5}, "^p_bern=0.5 draws random numbers: hand in seed=0$"),
        ({"score": "random"}, "^score='random' draws random numbers: hand in seed=0$"),
        ({"granularty": "filter"}, "granularity"),
        ({"exclude": "*"}, "nothing|no "),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(sc.InvalidArgumentError, match=message):
        GradientPruner(model, **{"p_prune": 0.5, **arguments})
    assert not hasattr(model[0], "weight_backward_mask")


def test_states_of_others_are_refused() -> None:
    state = GradientPruner(network(), 0.5).state_dict()
    with pytest.raises(sc.InvalidArgumentError, match=r"p_prune=0\.5.*p_prune=0\.4"):
        GradientPruner(network(), 0.4).load_state_dict(state)
    with pytest.raises(sc.InvalidArgumentError, match="another model"):
        GradientPruner(nn.Linear(3, 3), 0.5).load_state_dict(state)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": "x"}, "steps must be a whole number"),
        ({"draws": -1}, "draws must be a whole number"),
        (None, "must be what state_dict.* of a GradientPruner returned.*got dict"),
    ],
)
def test_damaged_states_are_refused(changed: dict[str, Any] | None, message: str) -> None:
    pruner = GradientPruner(network(), 0.5)
    state = {} if changed is None else {**pruner.state_dict(), **changed}
    with pytest.raises(sc.InvalidArgumentError, match=message):
        pruner.load_state_dict(state)


def test_nothing_is_put_back_after_remove() -> None:
    model = network()
    pruner = GradientPruner(model, 0.5, refresh=1)
    pruner.remove()
    pruner.step()
    assert type(model[0]) is nn.Conv2d
    assert pruner.steps == 0
    said = "this GradientPruner was removed: make another"
    with pytest.raises(sc.InvalidArgumentError, match=said), pruner:
        pass


def test_a_model_has_one_gradient_pruner_at_a_time() -> None:
    model = network()
    first = GradientPruner(model, 0.5, include="0", refresh=1)
    first.step()
    second = GradientPruner(model, 0.5, include="4")
    for _ in range(2):
        with pytest.raises(sc.InvalidArgumentError, match=r"of 4 was pruned since .*remove"):
            first.step()
        second.step()
    first.remove()
    assert model[4].weight_backward_mask is not None
    second.remove()
    assert all(not hasattr(type(module), "secateurs_base") for module in model)


@pytest.mark.parametrize("include", [None, "0"])
def test_masks_of_others_are_noticed(include: str | None) -> None:
    model = network()
    pruner = GradientPruner(model, 0.5, weight_gradient="masked")
    sc.gradient_prune(model, 0.5, include=include)  # with None, the same masks
    with pytest.raises(sc.InvalidArgumentError, match="by other masks than those of this"):
        pruner.step()
    assert (pruner.steps, pruner.draws) == (0, 1)
    sc.restore(model)
    pruner.step()
    assert model[0].weight_backward_mask is not None


def test_a_refresh_that_fails_comes_at_the_next_step() -> None:
    model = network()
    pruner = GradientPruner(model, 0.5, refresh=2)
    pruner.step()
    with torch.no_grad():
        value = model[0].weight[0, 0, 0, 0].item()
        model[0].weight[0, 0, 0, 0] = torch.nan
        with pytest.raises(sc.InvalidArgumentError, match=r"0\.weight is NaN"):
            pruner.step()
        model[0].weight[0, 0, 0, 0] = value
    pruner.step()
    assert (pruner.steps, pruner.draws) == (2, 2)


def test_copies_and_moved_models_go_on() -> None:
    model = network()
    pruner = GradientPruner(model, 0.5)
    for one in (pruner, copy.deepcopy(pruner), pickle.loads(pickle.dumps(pruner))):
        one._model._apply(torch.clone)  # new tensors, as a move to another device makes
        with sc.gradient_pruned(one._model, 0.9):
            pass
        one.step()
        assert one.draws == 1


def test_a_pruned_layer_that_is_gone_is_named() -> None:
    model = network()
    pruner = GradientPruner(model, 0.5)
    model[0] = nn.Identity()
    with pytest.raises(sc.InvalidArgumentError, match=r"0\.weight .* no such weight"):
        pruner.step()


@pytest.mark.parametrize("function", ["prune_gradients", "gradient_masks"])
def test_an_interrupt_of_a_step_leaves_the_masks_and_does_not_count(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    options: Any = {"refresh": 1, "seed": 1}
    pruner, other = (GradientPruner(each, 0.6, 0.5, **options) for each in (model, network()))
    before, now = pruner.masks, gradient_masks(model.modules())
    own = getattr(gradient_pruner, function)
    calls = 0

    def interrupted(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = own(*given, **options)
        if function == "prune_gradients" or calls == 2:  # the first looks whose masks there are
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gradient_pruner, function, interrupted)
        pruner.step()
    assert pruner.masks is before
    assert (pruner.steps, pruner.draws) == (0, 1)
    assert gradient_masks(model.modules()) == now
    for each in (pruner, other):
        each.step()
    assert pruner.masks == other.masks
    pruner.remove()
    assert not gradient_masks(model.modules())


def test_an_interrupt_while_it_is_made_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gradient_pruner, "gradient_masks", interrupted)
        GradientPruner(model, 0.5)
    assert not gradient_masks(model.modules())
