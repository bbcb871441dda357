"""Other tensors instead of a module's parameters, for one thread alone.

While a surrogate runs, the dictionary of a module's parameters is one whose look-ups depend on the
thread. Another thread that runs the network at that time finds the parameters, and if it runs
another surrogate of the network, the tensors of that one.
"""

import threading
from collections.abc import Generator, ItemsView, Iterator, KeysView, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

# Held while dictionaries are exchanged, never while a network runs. It is global, since surrogates
# of one network must share it.
_EXCHANGE = threading.Lock()

Value = Tensor | partial[Tensor]
"""A tensor, or a function that makes it when it is looked up."""


class ThreadParameters(dict[str, Any]):
    """The parameters of a module, of which a thread may replace some for itself.

    A look-up (``module.weight``) gives the thread's tensor, if a surrogate has set one for the
    length of a call. Iteration (``parameters()``, ``state_dict()``, ``to()``) gives the parameters.
    What a thread writes during such a call only this thread sees: a network may replace parameters
    for a while and then restore what it found (``torch.func.functional_call``). A new parameter
    that is still there at the end of the call becomes the module's.
    """

    def __init__(self, real: dict[str, Any]):
        super().__init__(real)
        self.real = real
        self.users = 0
        # Not a dictionary of threads: torch.compile supports this, and compiles once for all draws.
        self.thread = threading.local()

    def __getitem__(self, name: str) -> Any:
        values = getattr(self.thread, "values", None)
        if values is not None and name in values:
            value = values[name]
            return value() if isinstance(value, partial) else value
        return self.real[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Look up one entry."""
        return self[name] if name in self.real else default

    def __setitem__(self, name: str, value: Any) -> None:
        values: dict[str, Any] | None = getattr(self.thread, "values", None)
        if values is None or name not in self.real:
            self._write(name, value)
        elif value is not self.real[name]:
            values[name] = value
        elif name in self.thread.given:  # the parameter itself: the pruned one again
            values[name] = self.thread.given[name]
        else:
            values.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self.real[name]
        super().__delitem__(name)
        if getattr(self.thread, "values", None) is not None:
            self.thread.values.pop(name, None)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a parameter and return it."""
        if name in self.real:
            value = self.real[name]
            del self[name]
            return value
        return self.real.pop(name, *default)

    def replace(self, given: dict[str, Any]) -> tuple[Any, Any]:
        """Let this thread find these values; returns its earlier ones, for `put_back`."""
        before = getattr(self.thread, "given", None), getattr(self.thread, "values", None)
        self.thread.given, self.thread.values = given, dict(given)
        return before

    def put_back(self, before: tuple[Any, Any]) -> None:
        """Let this thread find its earlier values, and keep the new parameters that it set."""
        given, left = self.thread.given, self.thread.values
        self.thread.given, self.thread.values = before
        for name, value in left.items():
            new = name not in given or value is not given[name]
            if new and name in self.real and (value is None or isinstance(value, nn.Parameter)):
                self[name] = value

    def _write(self, name: str, value: Any) -> None:
        self.real[name] = value
        super().__setitem__(name, value)

    # Iteration reads the real dictionary, which other threads may have changed.
    def __iter__(self) -> Iterator[str]:
        return iter(self.real)

    def __len__(self) -> int:
        return len(self.real)

    def __contains__(self, name: object) -> bool:
        return name in self.real

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The names."""
        return self.real.keys()

    def values(self) -> Any:
        """The parameters themselves."""
        return self.real.values()

    def items(self) -> ItemsView[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The names and the parameters themselves."""
        return self.real.items()

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of the parameters themselves."""
        return dict(self.real)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A copy of the network has the parameters, also if it is made during a call."""
        return type(self.real), (), None, None, iter(self.real.items())


def parameters_of(module: nn.Module) -> dict[str, Any]:
    """A module's own dictionary of parameters, also if it is replaced now."""
    found: dict[str, Any] = module.__dict__["_parameters"]
    return found.real if isinstance(found, ThreadParameters) else found


Holder = tuple[nn.Module, ThreadParameters, tuple[tuple[str, int], ...]]
"""A module, a replacement for its dictionary, and (name, number of the value) pairs."""


def holders_of(tensors: Sequence[Sequence[tuple[nn.Module, str]]]) -> list[Holder]:
    """The modules whose parameters some values replace.

    For each value, ``tensors`` has every (module, attribute) that it replaces.
    """
    names: dict[nn.Module, list[tuple[str, int]]] = {}
    for number, attributes in enumerate(tensors):
        for module, attribute in attributes:
            names.setdefault(module, []).append((attribute, number))
    return [(m, ThreadParameters(parameters_of(m)), tuple(own)) for m, own in names.items()]


@contextmanager
def replaced_in_thread(holders: Sequence[Holder], values: Sequence[Value]) -> Generator[None]:
    """For a ``with`` block, let this thread find values instead of modules' parameters.

    There is one value for each of the tensors that ``holders`` were made for.
    """
    used = _enter(holders)
    before: list[tuple[Any, Any]] = []
    try:
        for shared, (_, _, names) in zip(used, holders, strict=True):
            given = {name: values[number] for name, number in names}
            before.append(shared.replace(given))
        yield
    finally:
        for shared, earlier in zip(used, before, strict=False):
            shared.put_back(earlier)
        _leave(holders)


def _enter(holders: Sequence[Holder]) -> list[ThreadParameters]:
    used: list[ThreadParameters] = []
    with _EXCHANGE:
        for module, own, _ in holders:
            present: dict[str, Any] = module.__dict__["_parameters"]
            if isinstance(present, ThreadParameters):
                shared = present
            else:
                shared = own if own.real is present else ThreadParameters(present)
                dict.update(shared, shared.real)
                module.__dict__["_parameters"] = shared
            shared.users += 1
            used.append(shared)
    return used


def _leave(holders: Sequence[Holder]) -> None:
    with _EXCHANGE:
        for module, _, _ in holders:
            shared = module.__dict__["_parameters"]
            shared.users -= 1
            if not shared.users:
                module.__dict__["_parameters"] = shared.real
