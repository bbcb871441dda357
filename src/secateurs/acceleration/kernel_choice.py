"""Chooses a kernel for each layer by timing, and then checks the model as a whole."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.acceleration.layer_form import LayerForm, form_of, why_not_form
from secateurs.acceleration.layer_swap import Conditions, FastLayer, install
from secateurs.acceleration.layer_timing import DENSE, LayerTiming
from secateurs.acceleration.observed_calls import (
    Calls,
    Example,
    NamedLayers,
    SeenInput,
    observe,
    tensors_in,
)
from secateurs.acceleration.sparse_kernels import Kernel, kernels_for
from secateurs.acceleration.stopwatch import Measure
from secateurs.errors import FailureError
from secateurs.parameters.layer_kinds import EVERY_KIND
from secateurs.parameters.model_contents import ModelContents

_NOT_HERE = (RuntimeError, NotImplementedError, ValueError)
"""What torch raises where a sparse product is not implemented for a device or a dtype."""

ACCELERATED = "accelerated"
"""The name of the accelerated model among what is measured."""


def plain_layers(contents: ModelContents) -> tuple[list[tuple[str, nn.Module]], dict[str, str]]:
    """The layers that may be replaced, and the others with the reason, by name."""
    layers: list[tuple[str, nn.Module]] = []
    left: dict[str, str] = {}
    for name, module in contents.modules:
        if isinstance(module, EVERY_KIND):
            why = why_not_form(module)
            if why:
                left[name] = why
            else:
                layers.append((name, module))
    return layers, left


class KernelChoice:
    """The layers of a model, what was measured of them, and what was chosen.

    Args:
        model: the network, in evaluation mode.
        layers: the layers that may be replaced.
        examples: what it is called with.
        conditions: what all layers share.
        measure: gives the seconds that functions take.
        margin: the part of the dense time that a kernel must save.
        tolerance: how far an output may be from the dense one, relative to the largest.

    Attributes:
        timings: by layer and shape.
        fast: what replaces the layers, by name.
        seconds: of the dense and of the accelerated model, for each example.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: NamedLayers,
        examples: Sequence[Example],
        conditions: Conditions,
        *,
        measure: Measure,
        margin: float,
        tolerance: float,
    ):
        self._model, self._layers, self._examples = model, dict(layers), examples
        self._conditions, self._measure = conditions, measure
        self._margin, self._tolerance = margin, tolerance
        self._calls = [observe(model, layers, example) for example in examples]
        self.timings: dict[tuple[str, torch.Size], LayerTiming] = {}
        self.fast: dict[str, FastLayer] = {}
        self.seconds: list[tuple[float, float]] = []
        for name, module in layers:
            form = form_of(module)
            kept = int(torch.count_nonzero(form.matrix))
            total = form.matrix.numel() // form.groups
            for shape, count in self._shapes(name).items():
                self.timings[name, shape] = LayerTiming(
                    name, type(module).__name__, tuple(shape), 1 - kept / total, kept, count
                )

    def measure_layers(self) -> None:
        """Time the kernels of every layer, and install the fastest."""
        for name, module in self._layers.items():
            for seen in self._inputs(name):
                self._measure_layer(name, module, form_of(module), seen)
        self._install()

    def take(self, planned: Iterable[LayerTiming]) -> None:
        """Install what was chosen earlier.

        Raises:
            FailureError: a kernel that was chosen does not work here.
        """
        for one in planned:
            name, shape = one.name, torch.Size(one.shape)
            seen = next(s for s in self._inputs(name) if s.shape == shape)
            count = self.timings[name, shape].calls
            self.timings[name, shape] = replace(one, calls=count)
            if one.chosen == DENSE:
                continue
            made = kernels_for(form_of(self._layers[name]), shape).get(one.chosen)
            kernel = None if made is None else self._working(self._layers[name], seen, made)
            if kernel is None:
                raise FailureError(
                    f"the plan computes {name} by {one.chosen}, which does not work here: leave "
                    "plan out to measure again"
                )
            self._layer(name).kernels[shape] = kernel
        self._install()

    def check_whole(self) -> None:
        """Take kernels out, the least useful first, until the model is nowhere slower than dense.

        An output that is too far from the dense one counts as slower.
        """
        self.seconds = [self._check(i, example) for i, example in enumerate(self._examples)]
        for name in [n for n, f in self.fast.items() if not any(f.kernels.values())]:
            del self.fast[name]

    def _check(self, number: int, example: Example) -> tuple[float, float]:
        run = partial(self._run, example)
        while True:
            used = sorted(
                (t for k, t in self.timings.items() if self._is_called(number, *k) and t.saved > 0),
                key=lambda t: t.saved,
            )
            functions = {
                DENSE: partial(run, enabled=False),
                ACCELERATED: partial(run, enabled=True),
            }
            if not used:
                seconds = self._measure({DENSE: functions[DENSE]})[DENSE]
                return seconds, seconds
            if is_close(functions[DENSE](), functions[ACCELERATED](), self._tolerance):
                seconds = self._measure(functions)
                if seconds[ACCELERATED] <= seconds[DENSE]:
                    return seconds[DENSE], seconds[ACCELERATED]
            for one in used[: (len(used) + 1) // 2]:
                self._drop(one)

    def _drop(self, one: LayerTiming) -> None:
        shape = torch.Size(one.shape)
        self.timings[one.name, shape] = replace(one, chosen=DENSE)
        self.fast[one.name].kernels[shape] = None

    def _run(self, example: Example, *, enabled: bool) -> Any:
        self._conditions.enabled = enabled
        try:
            return example.run(self._model)
        finally:
            self._conditions.enabled = True

    def _measure_layer(
        self, name: str, module: nn.Module, form: LayerForm, seen: SeenInput
    ) -> None:
        kernels = {
            kind: kernel
            for kind, make in kernels_for(form, seen.shape).items()
            if (kernel := self._working(module, seen, make)) is not None
        }
        if not kernels:
            return
        values, dense = seen.random(), type(module).forward
        functions: dict[str, Callable[[], object]] = {DENSE: partial(dense, module, values)}
        for kind, kernel in kernels.items():
            fast = FastLayer(name, module, self._conditions)
            fast.kernels[seen.shape] = kernel
            functions[kind] = partial(fast.call, module, dense, values)
        timing = replace(self.timings[name, seen.shape], seconds=dict(self._measure(functions)))
        timing = timing.with_fastest(self._margin)
        self.timings[name, seen.shape] = timing
        if timing.chosen != DENSE:
            self._layer(name).kernels[seen.shape] = kernels[timing.chosen]

    def _working(
        self, module: nn.Module, seen: SeenInput, make: Callable[[], Kernel]
    ) -> Kernel | None:
        """A kernel; None if it does not work here, or not exactly enough."""
        values = seen.random()
        try:
            kernel = make()
            output = kernel(values, module._parameters["bias"])
        except _NOT_HERE:
            return None
        expected = type(module).forward(module, values)
        return kernel if is_close(expected, output, self._tolerance) else None

    def _layer(self, name: str) -> FastLayer:
        if name not in self.fast:
            self.fast[name] = FastLayer(name, self._layers[name], self._conditions)
            # Other shapes that the examples have stay dense without a word.
            self.fast[name].kernels |= dict.fromkeys(self._shapes(name))
        return self.fast[name]

    def _install(self) -> None:
        for name, fast in self.fast.items():
            install(self._layers[name], fast)

    def _inputs(self, name: str) -> list[SeenInput]:
        every = {
            s: i for calls in self._calls if name in calls for s, i in calls[name].inputs.items()
        }
        return list(every.values())

    def _shapes(self, name: str) -> Mapping[torch.Size, int]:
        found: dict[torch.Size, int] = {}
        for calls in self._calls:
            if name in calls:
                found |= calls[name].counts
        return found

    def _is_called(self, number: int, name: str, shape: torch.Size) -> bool:
        calls: Calls | None = self._calls[number].get(name)
        return calls is not None and shape in calls.counts


def is_close(expected: Any, output: Any, tolerance: float) -> bool:
    """Whether all tensors in an output are as expected, relative to the largest value of each."""
    pairs = zip(tensors_in(expected), tensors_in(output), strict=True)
    return all(_error(one, other) <= _allowed(one, tolerance) for one, other in pairs)


def _allowed(tensor: Tensor, tolerance: float) -> float:
    if not tensor.is_floating_point():
        return tolerance
    return max(tolerance, 2 * torch.finfo(tensor.dtype).eps)


def _error(expected: Tensor, output: Tensor) -> float:
    """The largest difference by the largest value; infinite if shapes or dtypes differ."""
    if expected.shape != output.shape or expected.dtype != output.dtype:
        return float("inf")
    if expected.numel() == 0 or torch.equal(expected, output):
        return 0.0
    wide = expected.double()
    largest = wide.abs().max()
    return float((output.double() - wide).abs().max() / largest) if largest > 0 else float("inf")
