"""Gradient pruning for the length of one call, and for one thread: no module is changed.

`secateurs.gradient_pruning.modules` prunes a model until it is restored, and so for whoever calls
it. Here the function mode that it works with is entered around the call, and told the masks.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from secateurs.gradient_pruning.function_mode import MaskedWeights, without_our_mode
from secateurs.gradient_pruning.modules import not_handed, wants_gradients
from secateurs.surrogates.activation_checkpointing import NO_THREAD
from secateurs.surrogates.network_snapshot import NetworkSnapshot
from secateurs.surrogates.torch_transforms import refuse_forward_mode

Learn = Callable[[Sequence[Tensor], Sequence[Tensor]], None]


@contextmanager
def masked_backward(network: nn.Module, snapshot: NetworkSnapshot) -> Generator[Learn]:
    """The backward pass of what runs inside is pruned by the masks that it is told.

    Args:
        network: the model.
        snapshot: which weights there will be masks for.

    Yields:
        A function that takes the weights and their masks, each one for a target.

    Raises:
        FailureError: a module did not hand its weight to a function that can be replaced.
    """
    if not torch.is_grad_enabled():
        yield _nothing
        return
    refuse_forward_mode()
    call = _Call(network, snapshot)
    with call.mode, call.watching():
        yield call.learn
    call.check()


def _nothing(weights: Sequence[Tensor], keeps: Sequence[Tensor]) -> None:
    """Without gradients there is nothing to learn."""
    del weights, keeps


class _Call:
    """What one call of the network does with its masked weights."""

    def __init__(self, network: nn.Module, snapshot: NetworkSnapshot):
        self.mode = MaskedWeights(network)
        self._thread = threading.get_ident()
        self._weights: Sequence[Tensor] = ()
        self._ran: list[nn.Module] = []
        self._outside: list[AbstractContextManager[Any]] = []
        self._held: dict[nn.Module, list[int]] = {}
        for number, target in enumerate(snapshot.targets):
            for module, _ in target.places:
                self._held.setdefault(module, []).append(number)
        self._fast = snapshot.fast

    def __reduce__(self) -> tuple[Any, ...]:
        # A network that is copied or saved while it runs takes its hooks with it.
        return _Call._over, ()

    @classmethod
    def _over(cls) -> Self:
        """A call that acts in no thread."""
        call = cls.__new__(cls)
        call._thread = NO_THREAD
        return call

    def learn(self, weights: Sequence[Tensor], keeps: Sequence[Tensor]) -> None:
        self._weights = weights
        self.mode.take(weights, keeps)

    def check(self) -> None:
        """Refuse a module that ran, but not by the functions that know the masks."""
        for module in self._ran:
            for number in self._held[module]:
                if self._weights and id(self._weights[number]) not in self.mode.used:
                    raise not_handed(module)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Hear which modules run. Entered by hand: a handle for each would take longer."""
        key = id(self)
        for module in self._held:
            module._forward_pre_hooks[key] = self._note
        for module in self._fast:
            module._forward_pre_hooks[key] = self._leave_mode
            module._forward_pre_hooks_with_kwargs[key] = True
            module._forward_hooks[key] = self._enter_mode
            module._forward_hooks_always_called[key] = True
        try:
            yield
        finally:
            for module in (*self._held, *self._fast):
                module._forward_pre_hooks.pop(key, None)
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks.pop(key, None)
                module._forward_hooks_always_called.pop(key, None)

    def _note(self, module: nn.Module, args: Any) -> None:  # noqa: ARG002
        if torch.compiler.is_compiling():  # there the mode sees all functions
            return
        if threading.get_ident() != self._thread or not torch.is_grad_enabled():
            return
        if not self._outside:
            self._ran.append(module)

    def _leave_mode(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        """Where no gradient is wanted, torch takes another path unless a mode is active.

        In another thread, torch may no longer find that this hook takes ``kwargs``.
        """
        if threading.get_ident() != self._thread or not torch.is_grad_enabled():
            return
        if self._outside or not wants_gradients(module, args, kwargs):
            self._outside.append(without_our_mode())
            self._outside[-1].__enter__()
        elif module in self._held:
            self._ran.append(module)

    def _enter_mode(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG002
        if threading.get_ident() == self._thread and torch.is_grad_enabled() and self._outside:
            self._outside.pop().__exit__(None, None, None)
