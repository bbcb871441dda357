"""Gradient pruning for one call in one thread, without a change of the modules.

`secateurs.gradient_pruning.modules` prunes a model for all its callers, until it is restored. Here
the same function mode is entered around one call, and is given the masks.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from secateurs.gradient_pruning.function_mode import MaskedWeights, without_our_mode
from secateurs.gradient_pruning.pruned_forward import not_handed, wants_gradients
from secateurs.surrogates.activation_checkpointing import NO_THREAD
from secateurs.surrogates.network_snapshot import NetworkSnapshot
from secateurs.surrogates.torch_transforms import refuse_forward_mode

AddWeights = Callable[[Sequence[Tensor], Sequence[Tensor]], None]


@contextmanager
def masked_backward(network: nn.Module, snapshot: NetworkSnapshot) -> Generator[AddWeights]:
    """For a ``with`` block, prune the backward pass of calls of the network by given masks.

    Yields:
        A function to give the weights and their masks to, one of each for each target.

    Raises:
        FailureError: a module used its weight in a function that is not replaced.
    """
    if not torch.is_grad_enabled():
        yield lambda weights, keeps: None  # noqa: ARG005 - no backward pass, no masks
        return
    refuse_forward_mode()
    call = _Call(network, snapshot)
    with call.mode, call.hooks():
        yield call.add_weights
    call.check()


class _Call:
    """One call of the network: which modules with masked weights ran, and what they used."""

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
        # If the network is copied or saved during the call, so are its hooks.
        return _Call._ended, ()

    @classmethod
    def _ended(cls) -> Self:
        """A call whose hooks do nothing, in any thread."""
        call = cls.__new__(cls)
        call._thread = NO_THREAD
        return call

    def add_weights(self, weights: Sequence[Tensor], keeps: Sequence[Tensor]) -> None:
        self._weights = weights
        self.mode.add_weights(weights, keeps)

    def check(self) -> None:
        """Raise an error if a module ran, but passed its weight to no function that we replace."""
        for module in self._ran:
            for number in self._held[module]:
                if self._weights and id(self._weights[number]) not in self.mode.used:
                    raise not_handed(module)

    @contextmanager
    def hooks(self) -> Generator[None]:
        """For a ``with`` block, hook the modules; faster than one hook handle for each."""
        key = id(self)
        for module in self._held:
            module._forward_pre_hooks[key] = self._record
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

    def _record(self, module: nn.Module, args: Any) -> None:  # noqa: ARG002
        if torch.compiler.is_compiling():  # then the mode sees all functions
            return
        if threading.get_ident() != self._thread or not torch.is_grad_enabled():
            return
        if not self._outside:
            self._ran.append(module)

    def _leave_mode(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        """Leave the mode if no gradient is wanted, where torch then runs other code without a mode.

        In another thread, torch may call this hook without ``kwargs`` when the call has ended.
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
