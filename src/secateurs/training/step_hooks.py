"""The hooks that call a `Hold` at the steps of optimizers, and after parameters were loaded.

Types do not name `Hold`, whose module imports this one.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn, optim

Step = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of ``optimizer.step``, itself included."""


class LoadHook:
    """Calls a `Hold` after parameters were loaded; does nothing in a copied or pickled module."""

    def __init__(self, held: Any = None):
        self.held = held

    def __call__(self, module: nn.Module, _: Any) -> None:
        """Call the `Hold`."""
        if self.held is not None:
            self.held.loaded(module)

    def __reduce__(self) -> tuple[type["LoadHook"], tuple[()]]:
        return LoadHook, ()


def active_holds(modules: Iterable[nn.Module]) -> list[Any]:
    """Every `Hold` that is in force in some modules, once."""
    hooks = [hook for module in modules for hook in module._load_state_dict_post_hooks.values()]
    found = [hook.held for hook in hooks if isinstance(hook, LoadHook) and hook.held is not None]
    return list(dict.fromkeys(found))


def with_closure(
    step: Step, *, after: Callable[[], object], before: Callable[[], object] = lambda: None
) -> Step | None:
    """The arguments of a step, with calls before and after its closure; None without a closure."""

    def wrapped(closure: Callable[[], Any]) -> Callable[[], Any]:
        def evaluate() -> Any:
            before()
            loss = closure()
            after()
            return loss

        return evaluate

    args, kwargs = step
    if len(args) > 1 and args[1] is not None:
        return (args[0], wrapped(args[1]), *args[2:]), kwargs
    if kwargs.get("closure") is not None:
        return args, kwargs | {"closure": wrapped(kwargs["closure"])}
    return None


def step_hooks(held: Any) -> tuple[Any, Any]:
    """The hooks before and after a step of an optimizer, which torch does not compile."""

    @torch.compiler.disable
    def before(stepping: optim.Optimizer, *step: Any) -> Step | None:
        return held.before_step(stepping, (step[0], step[1]))

    @torch.compiler.disable
    def after(stepping: optim.Optimizer, *_: Any) -> None:
        held.after_step(stepping)

    return before, after


def refusal_by(held: Callable[[], Any]) -> Any:
    """A hook that all optimizers call before a step.

    Args:
        held: a weak reference to a `Hold`, so that the hook does not keep it alive.
    """

    @torch.compiler.disable
    def refuse(optimizer: optim.Optimizer, *_: Any) -> None:
        hold = held()
        if hold is not None:
            hold.check_optimizer(optimizer)

    return refuse
