"""`accelerate`: each pruned layer computed by the kernel that is fastest on this machine."""

import os
import weakref
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from secateurs._progress import progress_bar
from secateurs._validation import check_count, check_ratio
from secateurs.acceleration.kernel_choice import KernelChoice
from secateurs.acceleration.layer_form import plain_layers
from secateurs.acceleration.layer_swap import Conditions, FastLayer, uninstall
from secateurs.acceleration.layer_timing import LayerTiming, table_text, write_csv
from secateurs.acceleration.observed_calls import Example, examples_of
from secateurs.acceleration.refused_models import refuse_model
from secateurs.acceleration.saved_plan import Plan, machine
from secateurs.acceleration.stopwatch import Measure, Stopwatch
from secateurs.errors import InvalidArgumentError
from secateurs.originals.model_lock import changing
from secateurs.outputs import device_of, evaluation_mode
from secateurs.parameters.model_contents import ModelContents


def accelerate(
    model: nn.Module,
    example_input: Any,
    *,
    threads: int | None = None,
    margin: float = 0.05,
    tolerance: float = 1e-5,
    plan: "str | os.PathLike[str] | Plan | None" = None,
    measure: Measure | None = None,
    progress: bool | None = None,
) -> "Acceleration":
    """Make a pruned model faster where its zeros can be skipped, decided by timing it here.

    For each linear layer and convolution, the dense forward and others that make use of zeros
    (`secateurs.acceleration.sparse_kernels`) are timed on inputs of the shapes that the example
    gives. A layer's forward is replaced only where another one is faster; then the model as a whole
    is timed, and what does not pay is taken out again. Zeros count wherever they come from: masks
    of this library, or a file of weights.

    Parameters stay the same objects and ``state_dict`` the same. A copy or a pickle of the model is
    of the plain model. Layers run dense, and a warning says so once, where the shape of the input
    is none of the examples', the weights have changed since, the number of threads is another,
    gradients are needed, or the model is in training mode.

    Args:
        model: the network, pruned.
        example_input: what the model is called with: a tensor, a tuple of arguments, a dict of
            keyword arguments, or a list of such examples of several shapes. A named tuple is one
            argument.
        threads: how many threads of the CPU the model will use; default those of torch now.
        margin: the part of a layer's time that must be saved for it to be replaced, from 0 to 1.
        tolerance: how far outputs may be from the dense ones, relative to the largest; sums are
            rounded in another order. For half precision at least two units in the last place.
        plan: what `Acceleration.save` wrote, or an `Acceleration.plan`: nothing is timed then.
        measure: gives the seconds that each of some functions takes, instead of a `Stopwatch`.
        progress: False shows no progress. Timing takes minutes where the model takes seconds.

    Returns:
        A report that prints as a table, and undoes it by ``restore()`` or at the end of a ``with``.

    Raises:
        InvalidArgumentError: the model has no zeros, does not take the example, or is scripted,
            compiled, quantised, distributed, pruned in its backward pass alone, or accelerated
            already; or the plan was made for another machine, shapes or zeros.

    Example:
        >>> import torch
        >>> import secateurs as sc
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 10)).eval()
        >>> _ = sc.global_prune(net, 0.95)
        >>> with torch.inference_mode(), sc.accelerate(net, torch.rand(1, 512)) as accelerated:
        ...     logits = net(torch.rand(1, 512))
        >>> [layer.name for layer in accelerated.layers], logits.shape
        (['0', '1'], torch.Size([1, 10]))
    """
    check_ratio("margin", margin)
    check_ratio("tolerance", tolerance)
    count = None if threads is None else check_count("threads", threads)
    examples = examples_of(example_input)
    loaded = plan if plan is None or isinstance(plan, Plan) else Plan.load(plan)
    made = Acceleration(model, examples, count, margin, tolerance, measure, progress)
    made._measure(loaded)
    return made


class Acceleration:
    """What `accelerate` did to a model; made by it.

    Attributes:
        layers: what was measured and chosen, layer by layer.
        left: layers that cannot be replaced, with the reason.
        seconds: of the dense and of the accelerated model, for each example.
        plan: what `save` writes.
    """

    layers: tuple[LayerTiming, ...]
    left: Mapping[str, str]
    seconds: tuple[tuple[float, float], ...]
    plan: Plan

    def __init__(
        self,
        model: nn.Module,
        examples: list[Example],
        threads: int | None,
        margin: float,
        tolerance: float,
        measure: Measure | None,
        progress: bool | None,
    ):
        self.model = model
        self._examples, self._threads, self._progress = examples, threads, progress
        self._margin, self._tolerance, self._given = margin, tolerance, measure
        self._replaced: list[nn.Module] = []
        self._steps: RemovableHandle | None = None

    @property
    def speedup(self) -> float:
        """How many times as fast as dense the model is, over all examples; at least about 1."""
        dense, fast = (sum(column) for column in zip(*self.seconds, strict=True))
        return dense / fast if fast else 1.0

    def refresh(self) -> Self:
        """Measure again, as after the weights have changed."""
        self.restore()
        self._measure(None)
        return self

    def restore(self) -> None:
        """Give all layers their own forward back; safe to call twice."""
        with changing(self.model):
            while self._replaced:
                uninstall(self._replaced.pop())
            if self._steps is not None:
                self._steps.remove()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was chosen as JSON, for ``accelerate(..., plan=path)`` on a like machine."""
        self.plan.save(path)

    def rows(self) -> list[dict[str, Any]]:
        """The layers as plain values."""
        return [layer.as_dict() for layer in self.layers]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `rows` as a CSV file."""
        write_csv(self.rows(), path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()

    def __str__(self) -> str:
        whole = [
            f"{example}: dense {1e3 * dense:.3g} ms, accelerated {1e3 * fast:.3g} ms, "
            f"{dense / fast if fast else 1:.2f}x"
            for example, (dense, fast) in zip(self.plan.examples, self.seconds, strict=True)
        ]
        return "\n".join([table_text(self.layers), "", *whole])

    def __repr__(self) -> str:
        replaced = sum(layer.chosen != "dense" for layer in self.layers)
        return (
            f"Acceleration({self.speedup:.2f}x, {replaced} of {len(self.layers)} layers replaced)"
        )

    def _measure(self, plan: Plan | None) -> None:
        threads = torch.get_num_threads() if self._threads is None else self._threads
        contents = ModelContents(self.model)
        with changing(self.model), thread_count(threads), torch.no_grad():
            refuse_model(contents)
            layers, left = plain_layers(contents)
            refuse_unpruned(layers, left)
            with evaluation_mode(self.model):
                self._choose(layers, left, threads, plan)

    def _choose(
        self,
        layers: list[tuple[str, nn.Module]],
        left: dict[str, str],
        threads: int,
        plan: Plan | None,
    ) -> None:
        device = device_of(self.model)
        choice = KernelChoice(
            self.model,
            layers,
            self._examples,
            Conditions(threads),
            measure=self._given or Stopwatch(device, threads),
            margin=self._margin,
            tolerance=self._tolerance,
        )
        called = {name for name, _ in choice.timings}
        self.left = left | {
            name: "the example does not call it as a layer"
            for name, _ in layers
            if name not in called
        }
        here = machine(device, threads)
        shapes = tuple(map(str, self._examples))
        if plan is not None:
            plan.check(here, shapes, list(choice.timings.values()))
        try:
            if plan is None:
                total = len(choice.timings) + len(self._examples)
                with progress_bar("Timing", total, show=self._progress, unit="timings") as bar:
                    choice.measure_layers(bar)
                    choice.check_whole()
            else:
                choice.take(plan.layers)
        except BaseException:
            for _, module in layers:
                uninstall(module)
            raise
        self._replaced = [module for name, module in layers if name in choice.fast]
        # It remains, and does nothing, when the model is gone: removed when that is collected, it
        # could change the hooks of all optimizers while one of them runs through these.
        fast = weakref.WeakSet(choice.fast.values())
        self._steps = register_optimizer_step_post_hook(partial(note_step, fast))
        self.layers = tuple(choice.timings.values())
        self.seconds = tuple(choice.seconds) if plan is None else plan.seconds
        self.plan = Plan(here, self.layers, shapes, self.seconds)


def refuse_unpruned(layers: list[tuple[str, nn.Module]], left: Mapping[str, str]) -> None:
    """Refuse layers without zeros.

    Raises:
        InvalidArgumentError: none of the layers has a zero, or there is no layer.
    """
    weights = [module._parameters["weight"] for _, module in layers]
    if any(bool((weight == 0).any()) for weight in weights if weight is not None):
        return
    if not layers and not left:
        raise InvalidArgumentError(
            "the model has no zeros to make use of, since it has no linear layer or convolution "
            "(in an exported program they are functions): accelerate the model it was made from"
        )
    reasons = ", ".join(f"{name or 'the model'} ({why})" for name, why in left.items())
    others = f"; left are {reasons}" if left else ""
    raise InvalidArgumentError(
        "the model has no zeros to make use of: prune it first, as by "
        f"secateurs.global_prune(model, 0.9), or load weights that were pruned{others}"
    )


def note_step(layers: Iterable[FastLayer], optimizer: Optimizer, *_: object) -> None:
    """Mark layers whose weight an optimizer changed; a fused one leaves its version as it is."""
    changed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer in layers:
        layer.is_stale |= id(layer.weight) in changed


@contextmanager
def thread_count(count: int) -> Generator[None]:
    """Let torch use so many threads for a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
