"""Steps and aims reach a surrogate however it is wrapped."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from surrogate_cases import blocks, images
from torch import Tensor, nn

import secateurs as sc
from secateurs.attacks import attack
from secateurs.surrogates import mup
from secateurs.surrogates.wrappers import surrogates_in


class Wrapper(nn.Module):
    """Calls what one of its attributes holds."""

    def __init__(self, held: Any, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.held = held
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.held, x)


class Named(nn.Module):
    """Has layers that are called as what surrogates are told."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dense, self.step = inner, nn.Linear(1, 1), nn.ReLU()
        self.aim = self.frozen = None

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Told(nn.Module):
    """Is told itself, and tells nobody."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.steps = inner, 0

    def step(self) -> None:
        self.steps += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def closure(inner: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: inner(x)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "itself": lambda s: s,
    "submodule": lambda s: nn.Sequential(nn.Identity(), s),
    "deeper": lambda s: nn.Sequential(nn.Sequential(nn.Identity(), nn.Sequential(s))),
    "ensemble": lambda s: sc.Ensemble([s]),
    "wrapped ensemble": lambda s: nn.Sequential(sc.Ensemble([nn.Sequential(s)])),
    "other layers": Named,
    "list": lambda s: Wrapper([s], lambda held, x: held[0](x)),
    "dictionary": lambda s: Wrapper({"a": (s,)}, lambda held, x: held["a"][0](x)),
    "function": lambda s: Wrapper(closure(s), lambda held, x: held(x)),
    "partial": lambda s: Wrapper(functools.partial(s), lambda held, x: held(x)),
    "method": lambda s: Wrapper(s.forward, lambda held, x: held(x)),
    "deep list": lambda s: nn.Sequential(Wrapper([nn.Sequential(s)], lambda held, x: held[0](x))),
}


def attacked(member: nn.Module, **options: Any) -> Tensor:
    settings: dict[str, Any] = {"method": "mi-logit", "eps": 0.1, "alpha": 0.02, "steps": 3}
    return attack([member], images(4), torch.tensor([0, 1, 2, 3]), **(settings | options))


@pytest.mark.parametrize("name", WRAPPERS)
def test_steps_of_attacks_reach_wrapped_surrogates(name: str) -> None:
    def surrogate() -> sc.Diversified:
        return sc.Diversified(blocks(), 0.6, 0.5, redraw="step", seed=2)

    inner, alone = surrogate(), surrogate()
    member = WRAPPERS[name](inner)
    assert surrogates_in(member) == [inner]
    found = attacked(member, passes=2)
    assert inner.draws == 3
    assert torch.equal(found, attacked(alone, passes=2))
    every = sc.Diversified(blocks(), 0.6, 0.5)
    attacked(WRAPPERS[name](every), chunk=2)
    assert every.draws == 3


@pytest.mark.parametrize("name", WRAPPERS)
def test_classes_of_attacks_reach_wrapped_surrogates(name: str) -> None:
    inner, alone = mup(blocks(), 0.3), mup(blocks(), 0.3)
    assert torch.equal(attacked(WRAPPERS[name](inner)), attacked(alone))
    assert inner._classes is not None


@pytest.mark.parametrize("name", WRAPPERS)
def test_calls_of_the_ensemble_reach_wrapped_surrogates(name: str) -> None:
    inner, x = sc.Diversified(blocks(), 0.6, 0.5, redraw="step"), images()
    both = sc.Ensemble([WRAPPERS[name](inner), blocks()])
    first = both(x)
    assert torch.equal(both(x), first)
    both.step()
    assert not torch.equal(both(x), first)
    with both.frozen():
        kept = both(x)
        both.step()
        assert torch.equal(both(x), kept)
    with both.dense():
        assert torch.equal(both(x), sc.Ensemble([blocks(), blocks()])(x))
    both.restart(0)
    assert torch.equal(both(x), first)


def test_a_surrogate_that_two_members_hold_is_called_once() -> None:
    inner = mup(blocks(), 0.3, redraw="step")
    members = [nn.Sequential(inner), nn.Sequential(nn.Identity(), inner)]
    assert surrogates_in(*members) == [inner]


def test_a_member_with_the_method_itself_is_called_itself() -> None:
    inner = sc.Diversified(blocks(), 0.6, 0.5, redraw="step")
    told = Told(inner)
    attacked(told)
    assert (told.steps, inner.draws) == (3, 1)
