"""The hooks through which a `Hold` hears of steps and of what is loaded."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn, optim

Step = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of ``optimizer.step``, itself included."""


class Holding(Protocol):
    """What the hooks call."""

    def loaded(self, module: nn.Module) -> None:
        """A module loaded parameters."""

    def remove(self) -> None:
        """Let go."""

    def refuse_unknown(self, optimizer: optim.Optimizer) -> None:
        """Any optimizer is about to step."""

    def before_step(self, optimizer: optim.Optimizer, step: Step) -> Step | None:
        """An optimizer that was handed in is about to step."""

    def after_step(self, optimizer: optim.Optimizer) -> None:
        """It has stepped."""


class LoadHook:
    """Tells a `Hold` that something was loaded; a copied or pickled module's tells nobody."""

    def __init__(self, held: Holding | None = None):
        self.held = held

    def __call__(self, module: nn.Module, _: Any) -> None:
        """Say that a module loaded."""
        if self.held is not None:
            self.held.loaded(module)

    def __reduce__(self) -> tuple[type["LoadHook"], tuple[()]]:
        return LoadHook, ()


def with_closure(step: Step, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> Step | None:
    """The arguments of a step with its closure wrapped; None if it has no closure."""
    args, kwargs = step
    if len(args) > 1 and args[1] is not None:
        return (args[0], wrap(args[1]), *args[2:]), kwargs
    if kwargs.get("closure") is not None:
        return args, kwargs | {"closure": wrap(kwargs["closure"])}
    return None


def then(
    closure: Callable[[], Any], action: Callable[[set[int]], None], ids: set[int]
) -> Callable[[], Any]:
    """A closure after which an action follows."""

    def evaluate() -> Any:
        loss = closure()
        action(ids)
        return loss

    return evaluate


def step_hooks(held: Holding) -> tuple[Any, Any]:
    """The hooks before and after a step of an optimizer; a compiled step calls them as they are."""

    @torch.compiler.disable
    def before(stepping: optim.Optimizer, *step: Any) -> Step | None:
        return held.before_step(stepping, (step[0], step[1]))

    @torch.compiler.disable
    def after(stepping: optim.Optimizer, *_: Any) -> None:
        held.after_step(stepping)

    return before, after


def refusal_by(held: Callable[[], Holding | None]) -> Any:
    """A hook of all optimizers; it does nothing when the `Hold` is gone."""

    @torch.compiler.disable
    def refuse(optimizer: optim.Optimizer, *_: Any) -> None:
        there = held()
        if there is not None:
            there.refuse_unknown(optimizer)

    return refuse
