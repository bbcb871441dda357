"""What a hold means for originals, what is loaded and copied, and what it refuses."""

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel
from training_cases import (
    assert_held,
    assert_zeros,
    loss_of,
    network,
    pruned,
    train,
)

import secateurs as sc
from helpers import assert_same, snapshot
from secateurs.training import hold, masks_from_zeros


def sgd(model: nn.Module, **options: Any) -> optim.Optimizer:
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def test_given_masks_are_applied_and_restore_keeps_its_meaning() -> None:
    model = network()
    before = snapshot(model)
    masks = sc.select(model, 0.5).draw()
    optimizer = sgd(model)
    with hold(model, optimizer, masks):
        assert_held(model, optimizer, masks)
        dense = {name: model.get_parameter(name).detach().clone() for name in masks}
        train(model, optimizer, 1)
    assert torch.equal(
        model[4].weight_orig[masks["4.weight"]], dense["4.weight"][masks["4.weight"]]
    )
    with pytest.warns(sc.LostTrainingWarning):
        sc.restore(model)
    after = snapshot(model)
    assert all(torch.equal(after[name], before[name]) for name in masks)


def test_after_the_block_pruned_weights_learn_again() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer):
        train(model, optimizer, 1)
    assert_held(model, optimizer, masks)
    train(model, optimizer, 1)
    assert model[4].weight[~masks["4.weight"]].any()
    assert not model._load_state_dict_post_hooks
    assert not model[4]._load_state_dict_post_hooks


def test_a_newer_hold_ends_an_older_one() -> None:
    model = network()
    masks = pruned(model)
    first, second = sgd(model), sgd(model)
    older = hold(model, first)
    hold(model, second)
    assert "removed" in repr(older)
    train(model, second, 2)
    assert_held(model, second, masks)


def test_two_holds_of_other_weights_are_in_force_together() -> None:
    model = nn.MultiheadAttention(8, 2, kdim=4, vdim=4)  # three weights in one module, one inside
    dense = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    optimizer = sgd(model)
    masks = sc.select(model, 0.5, scope="layer").draw()
    parts = [sc.Masks({name: mask}) for name, mask in masks.units.items()]
    assert len(parts) == 4
    before = model.q_proj_weight.detach().clone()
    handles = [hold(model, optimizer, part) for part in parts]

    def assert_all_held() -> None:
        for name, mask in masks.items():
            assert torch.equal(model.get_parameter(name).detach() != 0, mask), name

    assert_all_held()
    assert torch.equal(model.q_proj_weight_orig, before)
    model.load_state_dict(dense)
    assert_all_held()
    handles[1].remove()
    model.load_state_dict(dense)
    assert model.get_parameter(list(masks)[1]).all()
    for name, mask in masks.items():
        assert name == list(masks)[1] or not model.get_parameter(name)[~mask].any()


def test_a_hold_of_a_replaced_parameter_ends_the_old_one() -> None:
    model = network()
    old = hold(model, sgd(model), sc.select(model, 0.5, include="4").draw())
    model[4].weight = nn.Parameter(torch.ones_like(model[4].weight))
    optimizer = sgd(model)
    with bad("4.weight was replaced by another Parameter"):
        train(model, optimizer, 1)
    new = hold(model, optimizer, old.masks)
    assert not old.is_active
    train(model, optimizer, 1)
    model.load_state_dict(network(1).state_dict())
    assert not model[4].weight[~new.masks["4.weight"]].any()


def test_a_hold_that_has_ended_is_not_entered_again() -> None:
    model = network()
    pruned(model)
    handle = hold(model, sgd(model))
    with handle:
        pass
    with bad("this hold has ended: call hold(model, optimizer, handle.masks)"), handle:
        pass


def test_loading_keeps_a_model_held_and_loses_nothing() -> None:
    model, dense = network(), network(1)
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer):
        train(model, optimizer, 1)
        model.load_state_dict(dense.state_dict())
        assert_held(model, optimizer, masks)
        assert torch.equal(model[4].weight_orig, dense[4].weight)
        model[4].load_state_dict(network(2)[4].state_dict())  # this layer alone
        assert_zeros(model[4].weight.detach()[~masks["4.weight"]], "4.weight")
        other = sgd(dense)
        train(dense, other, 2)
        optimizer.load_state_dict(other.state_dict())
        train(model, optimizer, 1)
        assert_held(model, optimizer, masks)


def test_what_is_saved_in_between_loads_into_a_plain_model() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    hold(model, optimizer)
    train(model, optimizer, 2)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    plain = network(1)
    plain.load_state_dict(torch.load(file, weights_only=True))
    assert_same(snapshot(plain), snapshot(model))
    assert masks_from_zeros(plain) == masks
    hold(plain, other := sgd(plain))  # taken from the zeros
    train(plain, other, 1)
    assert_held(plain, other, masks)


def test_a_held_model_is_copied_and_pickled_without_its_hold() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    hold(model, optimizer)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.load_state_dict(network(1).state_dict())
        assert other[4].weight[~masks["4.weight"]].all()
    train(model, optimizer, 1)
    assert_held(model, optimizer, masks)


def test_wrapped_optimizers_are_held() -> None:
    class Twice(optim.Optimizer):
        """Steps a base optimizer, and then moves every weight itself."""

        def __init__(self, base: optim.Optimizer):
            self.base = base
            super().__init__(base.param_groups, {})

        def step(self, closure: Any = None) -> None:
            self.base.step()
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(0.1)

    for late in (False, True):
        model = network()
        masks, base = pruned(model), sgd(model)
        outer = None if late else Twice(base)
        with hold(model, outer or base):
            loss_of(model).backward()
            (outer or Twice(base)).step()
            assert_held(model, base, masks)


def bad(match: str) -> Any:
    return pytest.raises(sc.InvalidArgumentError, match=re.escape(match))


def test_bad_input_is_named_and_changes_nothing() -> None:
    model = network()
    optimizer = sgd(model)
    before = snapshot(model)
    masks = sc.select(model, 0.5).draw()
    with bad("no weight is zero"):
        hold(model, optimizer)
    with bad("the masks are for another model: it has no parameter 'weight'"):
        hold(model, optimizer, sc.select(nn.Linear(3, 3), 0.5).draw())
    with bad("0.weight, 4.weight: masked, but in none of the optimizers"):
        hold(model, sgd(network()), masks)
    with bad("4.weight: masked, but in none"):
        hold(model, optim.SGD(model[0].parameters()), masks)
    with bad("must be a torch.optim.Optimizer or a list of them, got Sequential"):
        hold(model, model)  # type: ignore[arg-type]
    with bad("averaged must be averages of the model, wrapped as it is: the masks are for another"):
        hold(model, optimizer, masks, averaged=[AveragedModel(network()), nn.Linear(3, 3)])
    with bad("wrapped as it is: model must be a torch.nn.Module, got float"):
        hold(model, optimizer, masks, averaged=0.9)  # type: ignore[arg-type]
    assert not optimizer._optimizer_step_post_hooks
    assert_same(snapshot(model), before)
    assert not hasattr(model[4], "weight_orig")
    nn.init.zeros_(model[4].weight)
    with bad("all weights of 4.weight are zero"):
        masks_from_zeros(model)


def test_an_optimizer_that_was_replaced_is_refused_before_it_steps() -> None:
    model = network()
    pruned(model)
    hold(model, sgd(model))
    before = snapshot(model)
    other = sgd(model)
    loss_of(model).backward()
    with bad("0.weight is held, but the SGD that is about to step it was not handed in"):
        other.step()
    after = snapshot(model)
    assert all(torch.equal(after[n], before[n]) for n, _ in model.named_parameters())
    sgd(network()).step()  # others go on


def test_a_parameter_that_replaced_a_held_one_is_refused() -> None:
    model = network()
    pruned(model)
    optimizer = sgd(model)
    handle = hold(model, optimizer)
    with bad("0.weight was replaced by another Parameter (load_state_dict with assign=True)"):
        model.load_state_dict(network(1).state_dict(), assign=True)
    loss_of(model).backward()
    other = sgd(model)
    optimizer.add_param_group({"params": [model[0].weight]})
    for stepping in (other, optimizer):
        with bad("0.weight was replaced by another Parameter, which is not held"):
            stepping.step()
    hold(model, other, handle.masks)
    other.step()
    assert_held(model, other, handle.masks)


def test_a_layer_inside_of_another_stays_held_when_both_load() -> None:
    model = nn.MultiheadAttention(8, 2)
    masks = sc.select(model, 0.5).draw()
    assert set(masks) == {"in_proj_weight", "out_proj.weight"}
    dense = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    with hold(model, sgd(model), masks):
        model.load_state_dict(dense)
        for name, mask in masks.items():
            assert torch.equal(model.get_parameter(name).detach() != 0, mask)
