"""Forward passes of networks that differ from the dense one in one parameter alone."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.evaluation.forward import Forward
from secateurs.outputs import is_compiled
from secateurs.parameters.model_contents import ModelContents


def forward_of(
    model: nn.Module, device: torch.device, amp: bool, changed: Callable[[], Tensor | None]
) -> "partial[Forward]":
    """A function of ``warn`` that makes a `ReusingForward`, or a `Forward` where that is not exact.

    Compiled models do not call their modules one by one, and modules that are divided over ranks
    exchange data whenever they are called, so these run as a whole.
    """
    if any(map(is_compiled, model.modules())) or ModelContents(model).group.is_distributed:
        return partial(Forward, model, device, amp)
    return partial(ReusingForward, model, device, amp, changed=changed)


class ReusingForward(Forward):
    """Runs a network that differs from the dense one in one parameter.

    A module that ends before that parameter is first used returns the same as in the dense network.
    Its output is computed once for a batch, and then returned again without running the module. The
    code between the modules always runs, so residual connections work as usual. Kept are the
    outputs of the outermost modules that have ended; of an ``nn.Sequential`` only the last one.

    One more pass finds which calls end before a parameter is first used: it observes the functions
    of torch that get a parameter. If no function gets a parameter, no output is reused for it. An
    output that was overwritten in place since it was kept is computed again; and if the modules are
    called in another order than in that pass, all of them run.

    Args:
        model: the network.
        device: as for `Forward`.
        amp: as for `Forward`.
        warn: as for `Forward`.
        changed: the parameter that differs now; None for the dense network, with which each
            batch begins.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        amp: bool,
        warn: Callable[[str], None],
        changed: Callable[[], Tensor | None],
    ):
        super().__init__(model, device, amp, warn)
        self._changed = changed
        self._calls: list[_ModuleCall] = []
        self._first_uses: dict[int, int] = {}
        self._kept: dict[int, dict[int, _Kept]] = {}  # by the part of a batch, and the call

    def _logits(self, images: Tensor, part: int) -> Tensor:
        parameter = self._changed()
        if parameter is None:
            if part == 0:
                self._kept.clear()
            return super()._logits(images, part)
        if not self._calls:
            recorder = _FirstUses()
            with self._installed(recorder.run), recorder:
                super()._logits(images, part)
            self._calls, self._first_uses = recorder.calls, recorder.first_uses
        known = self._kept.setdefault(part, {})
        again = _Replay(self._calls, self._first_uses.get(id(parameter), 0), known)
        with self._installed(again.run):
            return super()._logits(images, part)

    def _halve(self, size: int) -> None:
        self._kept.clear()  # the parts are others now
        super()._halve(size)

    @contextmanager
    def _installed(self, run: Callable[..., Any]) -> Generator[None]:
        """Let ``run`` run the modules."""
        modules = [m for m in self.model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        before = [vars(module).get("forward") for module in modules]
        try:
            for module in modules:
                vars(module)["forward"] = partial(run, module, module.forward)
            yield
        finally:
            for module, own in zip(modules, before, strict=True):
                vars(module).pop("forward", None)
                if own is not None:
                    vars(module)["forward"] = own


@dataclass
class _ModuleCall:
    """One call of a module in a forward pass.

    Attributes:
        module: the module.
        end: when it ended, in calls and uses of parameters.
        size: how many calls it is, those inside included.
    """

    module: nn.Module
    end: int = 0
    size: int = 1


class _FirstUses(TorchFunctionMode):
    """Records the calls of modules in one pass, and when each parameter is first used.

    Attributes:
        calls: in the order of their beginning.
        first_uses: by the id of the parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_ModuleCall] = []
        self.first_uses: dict[int, int] = {}
        self._time = 0

    def run(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = _ModuleCall(module)
        first = len(self.calls)
        self.calls.append(call)
        output = forward(*args, **kwargs)
        self._time += 1
        call.end, call.size = self._time, len(self.calls) - first
        return output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for parameter in _parameters_in((*args, *kwargs.values())):
            if id(parameter) not in self.first_uses:
                self._time += 1
                self.first_uses[id(parameter)] = self._time
        return func(*args, **kwargs)


class _Replay:
    """Runs the modules of a pass, but for those whose output is known.

    Args:
        calls: those of a pass.
        until: the time from which on outputs differ from those of the dense network.
        known: outputs, by the number of the call; this pass adds to it.
    """

    def __init__(self, calls: list[_ModuleCall], until: int, known: "dict[int, _Kept]"):
        self._calls, self._until, self._known = calls, until, known
        self._next = 0

    def run(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        number = self._next
        call = self._calls[number] if number < len(self._calls) else None
        if call is None or call.module is not module:
            self._next = len(self._calls) + 1  # another order than learned: no more is known
            return forward(*args, **kwargs)
        ended = call.end < self._until
        kept = self._kept_of(number)
        if ended and kept is not None and kept.children is None:
            self._next = number + call.size
            return kept.output
        self._next = number + 1
        if type(module) is nn.Sequential and len(args) == 1 and not kwargs:
            output = self._in_sequence(number, module, args[0])
        else:
            output = forward(*args, **kwargs)
        if self._next <= number + call.size:
            self._next = number + call.size
            if ended:
                self._keep(number, call.size, _Kept(output, call.end))
        return output

    def _in_sequence(self, number: int, modules: nn.Sequential, value: Any) -> Any:
        """Run the modules of an ``nn.Sequential`` after the last one whose output is known."""
        kept, begin = self._kept_of(number), 0
        if kept is not None and kept.children is not None:
            begin, value, self._next = kept.children, kept.output, kept.following
        for index, module in enumerate(modules):
            if index < begin:
                continue
            inside = self._next
            value = module(value)
            last = self._kept_of(inside)
            if last is not None and last.children is None and last.output is value:
                kept = _Kept(value, last.end, index + 1, self._next)
                self._keep(number, self._next - number, kept)
        return value

    def _kept_of(self, number: int) -> "_Kept | None":
        """The output of a call, or of a part of it, if it is that of the dense network."""
        kept = self._known.get(number)
        usable = kept is not None and kept.end < self._until and kept.is_intact
        return kept if usable else None

    def _keep(self, number: int, size: int, kept: "_Kept") -> None:
        """Keep the output of a call in place of those of the calls inside it."""
        for inside in range(number, number + size):
            self._known.pop(inside, None)
        if kept.tensors is not None:
            self._known[number] = kept


class _Kept:
    """The output of a call, and how often it had been written to.

    Args:
        output: of the module.
        end: when the call ended.
        children: of an ``nn.Sequential`` that has not ended, how many of its modules have.
        following: the number of the call after these.

    Attributes:
        tensors: those of the output; None if it holds anything else, and so cannot be kept.
    """

    def __init__(self, output: Any, end: int, children: int | None = None, following: int = 0):
        self.output, self.end = output, end
        self.children, self.following = children, following
        several: Any = output if isinstance(output, tuple) else (output,)
        plain = all(type(one) is Tensor and not one.is_inference() for one in several)
        self.tensors: list[Tensor] | None = list(several) if plain else None
        self._versions = [one._version for one in self.tensors or ()]

    @property
    def is_intact(self) -> bool:
        """Whether nothing was written to it since."""
        return self._versions == [one._version for one in self.tensors or ()]


def _parameters_in(values: Any) -> Iterator[nn.Parameter]:
    for value in values:
        if isinstance(value, nn.Parameter):
            yield value
        elif isinstance(value, list | tuple):
            yield from _parameters_in(value)
