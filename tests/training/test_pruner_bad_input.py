"""What a Pruner refuses, by name, leaving the model as it was."""

import re
from typing import Any

import pytest
import torch
from torch import nn, optim
from training_cases import network, train

import secateurs as sc
from helpers import assert_same, snapshot
from secateurs.training import (
    GradientRegrowth,
    Iterative,
    MagnitudeRegrowth,
    OneShot,
    Pruner,
    Schedule,
)


def made(
    schedule: Schedule, model: nn.Module | None = None, **options: Any
) -> tuple[nn.Module, optim.Optimizer, Pruner]:
    model = network() if model is None else model
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, Pruner(model, optimizer, schedule, **options)


class Down(Schedule):
    last = 2

    def ratio_at(self, step: int) -> float | None:
        return {1: 0.6, 2: 0.3}.get(step)


class TooHigh(Down):
    def ratio_at(self, step: int) -> float | None:
        return 1.5 if step == 2 else None


def test_bad_input_is_named_and_changes_nothing() -> None:
    model = network()
    before = snapshot(model)

    def bad(said: str, *args: Any, **options: Any) -> None:
        with pytest.raises(sc.InvalidArgumentError, match=re.escape(said)) as caught:
            made(*args, model=model, **options)
        assert "generator" not in str(caught.value)
        assert_same(snapshot(model), before)
        assert not model[4]._load_state_dict_post_hooks

    bad("the schedule goes down, from 0.6 at step 1 to 0.3 at step 2", Down())
    bad("the schedule's ratio must be from 0 to 1", TooHigh())
    bad("schedule must be a Schedule, such as OneShot(0.9)", 0.5)
    bad("regrow must be None, MagnitudeRegrowth()", OneShot(0.5), regrow="magnitude")
    # At once, not at the first draw; a generator, as other functions take, is not proposed.
    bad("score='random' draws random numbers: hand in seed=0", OneShot(0.5, at=9), score="random")
    growing = GradientRegrowth(every=1, until=9)
    bad("start='erk' draws random numbers: hand in seed=0", OneShot(0.5, at=9), regrow=growing)
    bad("gamma=0.1 draws random", OneShot(0.5, at=9), regrow=MagnitudeRegrowth(gamma=0.1))
    bad("prunes every weight of 0.weight", OneShot(1.0))
    bad("keeps 1%, or exclude='0.weight'", OneShot(1.0), scope="layer")
    bad("granularity must be one of", OneShot(0.5), granularity="row")
    bad(
        "scope='2:4' prunes 0.5 of all units, not 0.292893", Iterative(0.5, 2, every=1), scope="2:4"
    )
    bad("each output of 0.weight has 18: to keep them", OneShot(0.5), scope="2:4")
    bad("keep_at_least=0.6 keeps more than the 0.5", OneShot(0.5), scope="2:4", keep_at_least=0.6)
    bad("which scope='2:4' forbids", OneShot(0.5), scope="2:4", regrow=growing)
    bad("averaged must be averages of the model", OneShot(0.5, at=9), averaged=nn.Linear(3, 3))
    rewound = Iterative(0.5, 2, every=1, rewind=0)
    bad("rewind does not go with", rewound, regrow=MagnitudeRegrowth())


def test_a_weight_that_is_not_a_number_is_named_and_nothing_is_pruned() -> None:
    model, optimizer, pruner = made(OneShot(0.5, at=1))
    train(model, optimizer, 1)
    with torch.no_grad():
        model[4].weight[0, 0] = torch.nan
    before = snapshot(model)
    with pytest.raises(sc.InvalidArgumentError, match=r"4\.weight"):
        pruner.step()
    assert_same(snapshot(model), before)
    with torch.no_grad():
        model[4].weight[0, 0] = 1
    pruner.step()  # the step that failed did not count
    assert (pruner.steps, pruner.sparsity) == (1, 0.5)


def test_a_step_that_cannot_be_written_does_not_count() -> None:
    model, optimizer, pruner = made(OneShot(0.5, at=1), include="0")
    Pruner(model, optimizer, OneShot(0.5), include="4")
    nn.utils.parametrizations.weight_norm(model[4])
    with pytest.raises(sc.InvalidArgumentError, match=r"4\.weight: since this was pruned"):
        pruner.step()
    assert (pruner.steps, pruner.sparsity) == (0, 0)
    nn.utils.parametrize.remove_parametrizations(model[4], "weight")
    pruner.step()
    assert (pruner.steps, pruner.sparsity) == (1, 0.5)


def test_a_state_of_another_training_is_refused() -> None:
    _, _, pruner = made(OneShot(0.5))
    _, _, other = made(OneShot(0.6))
    with pytest.raises(sc.InvalidArgumentError, match="the state was saved under schedule One"):
        pruner.load_state_dict(other.state_dict())
    _, _, other = made(OneShot(0.5), granularity="kernel")
    with pytest.raises(
        sc.InvalidArgumentError, match=r"it has a mask for 0\.weight of shape \(4, 2"
    ):
        pruner.load_state_dict(other.state_dict())
    _, _, other = made(OneShot(0.5), nn.Sequential(network()))
    for one, another in ((pruner, other), (other, pruner)):
        with pytest.raises(sc.InvalidArgumentError, match=r"it has a mask for 0\.(0\.)?weight"):
            one.load_state_dict(another.state_dict())
    _, _, other = made(OneShot(0.5), exclude="0", model=network())
    with pytest.raises(sc.InvalidArgumentError, match=r"it has no mask for 0\.weight of shape"):
        pruner.load_state_dict(other.state_dict())
    with pytest.raises(sc.InvalidArgumentError, match="the state has no 'put_off'"):
        pruner.load_state_dict({k: v for k, v in pruner.state_dict().items() if k != "put_off"})
    for broken in (None, pruner.state_dict() | {"steps": "two"}):
        before = pruner.masks
        with pytest.raises(sc.InvalidArgumentError, match=r"the state must be what|steps must be"):
            pruner.load_state_dict(broken)  # type: ignore[arg-type]
        assert pruner.masks is before


def test_a_schedule_without_fields_is_recognised_when_a_training_resumes() -> None:
    class Up(Down):
        def ratio_at(self, step: int) -> float | None:
            return {1: 0.3, 2: 0.6}.get(step)

    model, optimizer, pruner = made(Up())
    train(model, optimizer, 1, pruner.step)
    _, _, other = made(Up())
    other.load_state_dict(pruner.state_dict())
    assert other.sparsity == pruner.sparsity > 0
