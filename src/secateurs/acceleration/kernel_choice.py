"""Chooses a kernel for each layer by timing, and then checks the model as a whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from secateurs._progress import Bar
from secateurs.acceleration.layer_form import LayerForm, form_of
from secateurs.acceleration.layer_swap import Conditions, FastLayer, install, uninstall
from secateurs.acceleration.layer_timing import DENSE, LayerTiming
from secateurs.acceleration.observed_calls import (
    Example,
    NamedLayers,
    SeenInput,
    SeenInputs,
    is_close,
    observe,
)
from secateurs.acceleration.sparse_kernels import Kernel, SparseLinear, kernels_for
from secateurs.acceleration.stopwatch import Measure
from secateurs.acceleration.transposed_outputs import (
    TRANSPOSED,
    NamedShape,
    Noting,
    consecutive_pairs,
    transposed,
)
from secateurs.errors import FailureError

_NOT_HERE = (RuntimeError, NotImplementedError, ValueError)
"""What torch raises where an operation is not possible for a device, a dtype or a memory order."""

Kernels = dict[NamedShape, Kernel | None]

_LEAST_GAIN = 0.02
"""The part of the dense model's time that must be saved in all: less may be chance."""

ACCELERATED = "accelerated"
"""The name of the accelerated model among what is measured."""


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
        self._inputs: dict[str, SeenInputs] = {name: {} for name, _ in layers}
        for calls in self._calls:
            for name, seen in calls.items():
                self._inputs[name] |= seen
        self.timings: dict[NamedShape, LayerTiming] = {}
        self.fast: dict[str, FastLayer] = {}
        self.seconds: list[tuple[float, float]] = []
        self._is_installed = False
        for name, module in layers:
            form = form_of(module)
            kept = int(torch.count_nonzero(form.matrix))
            total = form.matrix.numel() // form.groups
            for shape, seen in self._inputs[name].items():
                self.timings[name, shape] = LayerTiming(
                    name, type(module).__name__, tuple(shape), 1 - kept / total, kept, seen.calls
                )

    def measure_layers(self, bar: Bar) -> None:
        """Time the kernels of every layer, and install the fastest."""
        for name, module in self._layers.items():
            for seen in self._inputs[name].values():
                self._measure_layer(name, module, form_of(module), seen)
                bar.advance(1)
        self._install()

    def take(self, planned: Iterable[LayerTiming]) -> None:
        """Install what was chosen earlier.

        Raises:
            FailureError: a kernel that was chosen does not work here.
        """
        for one in planned:
            name, shape = one.name, one.shape
            seen = self._inputs[name][shape]
            self.timings[name, shape] = replace(one, calls=seen.calls)
            if one.chosen == DENSE:
                continue
            made = _named(form_of(self._layers[name]), shape, one.chosen)
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
        before = None
        while before != self.timings:  # a kernel that one example has no use for may serve others
            before = dict(self.timings)
            self.seconds = [self._check(i, example) for i, example in enumerate(self._examples)]
            if len(self._examples) == 1:
                break
        self._switch(True)
        for name in [n for n, f in self.fast.items() if not any(f.kernels.values())]:
            uninstall(self._layers[name])
            del self.fast[name]

    def _check(self, number: int, example: Example) -> tuple[float, float]:
        dense, fast = (partial(self._run, example, enabled=enabled) for enabled in (False, True))
        while used := sorted(
            (t for t in self._called(number) if t.saved > 0), key=lambda t: t.saved
        ):
            functions = {DENSE: dense, ACCELERATED: fast}
            transposing = self._transposing(number, example)
            if transposing:
                functions[TRANSPOSED] = partial(fast, also=transposing)
            if self._gives_the_same(dense, fast):
                seconds = self._measure(functions)
                fastest = min(seconds, key=seconds.__getitem__)
                if seconds[fastest] <= (1 - _LEAST_GAIN) * seconds[DENSE]:
                    if fastest == TRANSPOSED:
                        self._keep(transposing)
                    return seconds[DENSE], seconds[fastest]
            for one in used[: (len(used) + 1) // 2]:
                self.timings[one.name, one.shape] = replace(one, chosen=DENSE)
                self.fast[one.name].kernels[one.shape] = None
        seconds = self._measure({DENSE: dense})[DENSE]
        return seconds, seconds

    def _gives_the_same(self, dense: Callable[[], Any], other: Callable[[], Any]) -> bool:
        try:
            output = other()
        except _NOT_HERE:  # as of `view`, which depends on the order in memory
            return False
        return is_close(dense(), output, self._tolerance)

    def _run(self, example: Example, *, enabled: bool, also: Kernels | None = None) -> Any:
        """Run the model dense or accelerated, with other kernels for some layers."""
        self._switch(enabled)
        before = self._exchange(also or {})
        try:
            return example.run(self._model)
        finally:
            self._exchange(before)

    def _exchange(self, kernels: Kernels) -> Kernels:
        """Install kernels, and return those that were there."""
        before: Kernels = {}
        for (name, shape), kernel in kernels.items():
            installed = self.fast[name].kernels
            before[name, shape], installed[shape] = installed[shape], kernel
        return before

    def _transposing(self, number: int, example: Example) -> Kernels:
        """Kernels that leave their output transposed, where the next layer's takes it like that.

        There are none if the model does not work with them, as where `view` needs a contiguous
        tensor.
        """
        timings = self._called(number)
        kernels: Kernels = {
            (t.name, t.shape): self.fast[t.name].kernels[t.shape]
            for t in timings
            if t.name in self.fast
        }
        pairs = consecutive_pairs(timings, kernels)
        if not pairs:
            return {}
        transposing: Kernels = {one: transposed(kernels[one]) for one, _ in pairs}  # type: ignore[arg-type]
        noting = {other: Noting(transposing.get(other) or kernels[other]) for _, other in pairs}  # type: ignore[arg-type]
        run = partial(self._run, example)
        noted = partial(run, enabled=True, also={**transposing, **noting})
        if not self._gives_the_same(partial(run, enabled=False), noted):
            return {}
        return {one: transposing[one] for one, other in pairs if noting[other].got_transposed}

    def _keep(self, transposing: Kernels) -> None:
        self._exchange(transposing)
        for key in transposing:
            one = self.timings[key]
            seconds = {**one.seconds, TRANSPOSED: one.seconds[one.chosen]}
            self.timings[key] = replace(one, seconds=seconds, chosen=TRANSPOSED)

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
            functions[kind] = partial(fast, module, dense, values)
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
            # For the examples' other shapes it runs dense, without a warning.
            self.fast[name].kernels |= dict.fromkeys(self._inputs[name])
        return self.fast[name]

    def _install(self) -> None:
        for name, fast in self.fast.items():
            install(self._layers[name], fast)
        self._is_installed = True

    def _switch(self, installed: bool) -> None:
        """Install the layers, or take them out, so that the dense model has none of our code."""
        if installed and not self._is_installed:
            self._install()
        elif not installed and self._is_installed:
            for name in self.fast:
                uninstall(self._layers[name])
            self._is_installed = False

    def _called(self, number: int) -> list[LayerTiming]:
        """The layers and shapes that an example calls, in order."""
        calls = self._calls[number]
        return [t for (name, shape), t in self.timings.items() if shape in calls.get(name, ())]


def _named(form: LayerForm, shape: tuple[int, ...], name: str) -> Callable[[], Kernel] | None:
    """The kernel of a plan; None if there is none of that name for such a layer."""
    if name == TRANSPOSED and not form.is_convolution:
        return partial(SparseLinear, form, contiguous=False)
    return kernels_for(form, shape).get(name)
