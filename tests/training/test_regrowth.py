"""Weights that come back: dynamic network surgery and RigL against slow, obvious versions."""

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from training_cases import LABELS, Stepping, assert_held, images, loss_of, network, train

import secateurs as sc
from helpers import bits
from secateurs.training import Constant, Cubic, GradientRegrowth, MagnitudeRegrowth, OneShot, Pruner

X = images().flatten(1)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(50, 8, bias=False), nn.Tanh(), nn.Linear(8, 5, bias=False))


def smallest(scores: Tensor, count: int) -> Tensor:
    """True at the ``count`` smallest scores; ties go to the earlier."""
    values = scores.reshape(-1).tolist()
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    chosen = torch.zeros(len(values), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.view(scores.shape)


class Masked(torch.autograd.Function):
    """W * T, whose gradient passes straight through to W."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


SURGERY = [
    Stepping("sgd", optim.SGD, {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01}),
    Stepping("adam", optim.Adam, {"lr": 0.05}),
]


@pytest.mark.parametrize("closure", [True, False])
@pytest.mark.parametrize("stepping", SURGERY, ids=lambda s: s.name)
def test_surgery_is_that_of_the_paper(stepping: Stepping, closure: bool) -> None:
    model = linear()
    weights = [nn.Parameter(p.detach().clone()) for p in model.parameters()]
    optimizer, obvious = stepping.of(model.parameters()), stepping.of(weights)
    margin, ratio = 0.2, 0.75
    pruner = Pruner(
        model,
        optimizer,
        OneShot(ratio, at=1),
        scope="layer",
        regrow=MagnitudeRegrowth(margin=margin),
    )
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    came_back = 0

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return F.cross_entropy((X @ first.T).tanh() @ second.T, LABELS)

    def held_loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(model(X), LABELS)
        value.backward()
        return value

    for _ in range(12):
        obvious.zero_grad()
        loss(*(Masked.apply(w, t) for w, t in zip(weights, masks, strict=True))).backward()
        obvious.step()
        for place, (w, t) in enumerate(zip(weights, masks, strict=True)):
            scores = w.detach().abs() * torch.where(t, 1 + margin, 1.0)
            masks[place] = ~smallest(scores, round(ratio * w.numel()))
            came_back += int((masks[place] & ~t).sum())

        if closure:
            optimizer.step(held_loss)
        else:
            held_loss()
            optimizer.step()
        pruner.step()
        for name, layer, w, t in zip(("0", "2"), (model[0], model[2]), weights, masks, strict=True):
            assert torch.equal(pruner.masks[f"{name}.weight"], t)
            assert torch.equal(bits(layer.weight), bits(torch.where(t, w, 0)))
            assert torch.equal(layer.weight_orig, w)  # what is learned behind the mask
    assert came_back > 10
    pruner.remove()
    sc.restore(model)  # without a warning: nothing is lost
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


@pytest.mark.filterwarnings("error::secateurs.LostTrainingWarning")
def test_surgery_with_lbfgs_sees_masked_weights_in_every_evaluation() -> None:
    model = linear()
    optimizer = optim.LBFGS(model.parameters(), max_iter=3, line_search_fn="strong_wolfe")
    pruner = Pruner(model, optimizer, OneShot(0.5), regrow=MagnitudeRegrowth())
    seen: list[float] = []

    def closure() -> Tensor:
        seen.append(sc.sparsity(model).ratio)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), LABELS)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
        pruner.step()
    assert len(seen) > 4
    assert set(seen) == {0.5}


@pytest.mark.parametrize("lift", [sc.restore, sc.make_permanent])
def test_surgery_goes_on_after_the_originals_are_gone(lift: Any) -> None:
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    pruner = Pruner(model, optimizer, OneShot(0.5), regrow=MagnitudeRegrowth(every=100))
    lift(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    F.cross_entropy(model(X), LABELS).backward()
    wanted = [w - 0.5 * p.grad for w, p in zip(before, model.parameters(), strict=True)]
    optimizer.step()
    for layer, w, mask in zip((model[0], model[2]), wanted, pruner.masks.values(), strict=True):
        assert torch.equal(layer.weight, torch.where(mask, w, 0))
        assert torch.equal(layer.weight_orig, w)


def test_an_optimizer_that_fails_leaves_masks_in_force_and_what_was_learned() -> None:
    class Failing(optim.Optimizer):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for parameter in self.param_groups[0]["params"]:
                parameter.sub_(0.5 * parameter.grad)
            raise KeyboardInterrupt

    model = linear()
    optimizer = Failing(model.parameters(), {})
    F.cross_entropy(model(X), LABELS).backward()
    with (
        pytest.raises(KeyboardInterrupt),
        Pruner(model, optimizer, OneShot(0.5), regrow=MagnitudeRegrowth()),
    ):
        wanted = model[0].weight_orig - 0.5 * model[0].weight.grad
        optimizer.step()
    assert sc.sparsity(model).ratio == 0.5
    assert torch.equal(model[0].weight_orig, wanted)


def test_surgery_moves_no_weights_from_one_layer_to_another() -> None:
    model = linear()
    with torch.no_grad():
        model[2].weight.mul_(0.5)  # small weights with large gradients grow fastest
    optimizer = optim.SGD(model.parameters(), 0.5)
    pruner = Pruner(model, optimizer, OneShot(0.5), regrow=MagnitudeRegrowth())
    kept = {name: mask.keep.clone() for name, mask in pruner.masks.units.items()}
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(X), LABELS).backward()
        optimizer.step()
        pruner.step()
    later = {name: mask.keep for name, mask in pruner.masks.units.items()}
    assert {n: int(k.sum()) for n, k in kept.items()} == {n: int(k.sum()) for n, k in later.items()}
    assert any(not torch.equal(kept[name], later[name]) for name in kept)


def test_masks_change_less_and_less_often() -> None:
    regrow = MagnitudeRegrowth(gamma=1.0, power=1.0)
    assert [regrow.probability(t) for t in (0, 1, 4)] == [1.0, 0.5, 0.2]
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    pruner = Pruner(model, optimizer, OneShot(0.5), regrow=regrow, seed=0)
    changed = []

    def step() -> None:
        before = pruner.masks
        pruner.step()
        changed.append(before is not pruner.masks)

    train(model, optimizer, 20, step)
    assert 1 <= sum(changed) <= 12


def oracle_rigl(weight: Tensor, grad: Tensor, keep: Tensor, share: float) -> Tensor:
    """Drop the k smallest of what is kept, grow the k largest gradients of what is not."""
    count = round(share * int(keep.sum()))
    left = keep & ~smallest(torch.where(keep, weight.abs(), math.inf), count)
    return left | smallest(torch.where(left, math.inf, -grad.abs()), count)


def test_rigl_is_that_of_the_paper() -> None:
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    regrow = GradientRegrowth(every=2, until=9, fraction=0.4)
    pruner = Pruner(model, optimizer, Constant(0.8), regrow=regrow, seed=0)
    expected = {name: mask.clone() for name, mask in pruner.masks.items()}
    total = sum(mask.numel() for mask in expected.values())
    assert sum(int((~mask).sum()) for mask in expected.values()) == round(0.8 * total)
    assert int(expected["2.weight"].sum()) == 16  # by ERK two fifths of 40
    for step in range(1, 13):
        optimizer.zero_grad()
        F.cross_entropy(model(X), LABELS).backward()
        optimizer.step()
        grown = None
        if step % 2 == 0 and step < 9:
            share = 0.2 * (1 + math.cos(step * math.pi / 9))
            for name, keep in expected.items():
                p = model.get_parameter(name)
                assert p.grad is not None
                expected[name] = oracle_rigl(p.detach(), p.grad, keep, share)
                if name == "0.weight":
                    grown = expected[name] & ~keep
        pruner.step()
        for name, mask in pruner.masks.items():
            assert torch.equal(mask, expected[name]), f"{name} at step {step}"
        if grown is not None:
            assert grown.any()
            assert not model[0].weight[grown].any()  # they begin at zero
            assert not optimizer.state[model[0].weight]["momentum_buffer"][grown].any()
        zeros = ~pruner.masks["0.weight"]
        assert not model[0].weight[zeros].any()
    assert model[0].weight[pruner.masks["0.weight"]].all()  # what was grown has learned


@pytest.mark.parametrize("granularity", ["kernel", "filter"])
def test_units_are_dropped_and_grown_whole(granularity: str) -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    regrow = GradientRegrowth(every=1, until=9, fraction=0.6, start="uniform")
    pruner = Pruner(model, optimizer, Constant(0.5), granularity=granularity, regrow=regrow, seed=0)
    first = pruner.masks
    train(model, optimizer, 3, pruner.step)
    assert pruner.masks != first
    for name, mask in pruner.masks.units.items():
        assert int(mask.keep.sum()) == int(first.units[name].keep.sum()) > 0


def test_a_schedule_and_regrowth_together() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    regrow = GradientRegrowth(every=1, until=9, start="score")
    pruner = Pruner(model, optimizer, Cubic(0.8, end=6, every=3), regrow=regrow)
    for step in range(1, 8):
        train(model, optimizer, 1)
        pruner.step()
        pruned = sum(int((~mask).sum()) for mask in pruner.masks.values())
        assert pruned == round(pruner.schedule.ratio_at(min(step - step % 3, 6)) * 252)


def test_gradients_that_are_not_finite_put_the_change_off() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(
        model, optimizer, Constant(0.5), regrow=GradientRegrowth(every=2, until=9), seed=0
    )
    first = pruner.masks
    loss_of(model).backward()
    pruner.step()
    model[4].weight.grad[0, 0] = torch.inf
    pruner.step()
    assert pruner.masks is first
    assert pruner.state_dict()["put_off"]
    train(model, optimizer, 1, pruner.step)
    assert pruner.masks is not first
    assert_held(model, optimizer, sc.Masks({}))


def test_bad_input_is_named() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(
        model, optimizer, Constant(0.5), regrow=GradientRegrowth(every=1, until=9), seed=0
    )
    with pytest.raises(
        sc.InvalidArgumentError, match=r"0\.weight has no gradient to grow by"
    ) as one:
        pruner.step()
    assert "before optimizer.zero_grad()" in str(one.value)
    lbfgs = optim.LBFGS(network().parameters())
    with pytest.raises(sc.InvalidArgumentError, match="which LBFGS must not see"):
        Pruner(network(), lbfgs, Constant(0.5), regrow=GradientRegrowth(every=1, until=9), seed=0)
    for make, said in [
        (lambda: GradientRegrowth(every=0, until=9), "every must be a whole number from 1"),
        (lambda: GradientRegrowth(every=1, until=9, start="er"), "start must be one of erk"),
        (lambda: GradientRegrowth(every=1, until=9, fraction=30), "for 30 per cent write 0.3"),
        (lambda: MagnitudeRegrowth(margin=-1), "margin must be a number from 0 on"),
    ]:
        with pytest.raises(sc.InvalidArgumentError, match=re.escape(said)):
            make()
