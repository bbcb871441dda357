"""Images a second against the ratio of zeros, dense and accelerated."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._validation import check_count, check_ratio
from secateurs.acceleration.accelerated_model import accelerate, thread_count
from secateurs.acceleration.layer_timing import DENSE
from secateurs.acceleration.saved_plan import machine
from secateurs.acceleration.stopwatch import Measure, Stopwatch
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation.sweep_rows import columns_of
from secateurs.masks._sparsity import sparsity
from secateurs.outputs import device_of, evaluation_mode
from secateurs.provenance import device_name, versions, weights_sha256
from secateurs.pruning import pruned
from secateurs.results.speed_row import SpeedRow
from secateurs.selection.selection_options import SelectionOptions

RATIOS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""The ratios that are measured if none are given."""


@dataclass(frozen=True)
class SpeedGrid:
    """What is measured: all combinations.

    Attributes:
        p_prune: ratios of units that are pruned; none for `RATIOS`, without those that the network
            has reached.
        batch_sizes: images that are run at once.
        threads: threads of the CPU.
        options: how it is pruned.
    """

    p_prune: Sequence[float] = ()
    batch_sizes: Sequence[int] = (1, 16)
    threads: Sequence[int] = (1, 2)
    options: SelectionOptions = field(default_factory=SelectionOptions)

    def __post_init__(self) -> None:
        for ratio in self.p_prune:
            check_ratio("p_prune", ratio)
        for name in ("batch_sizes", "threads"):
            if not getattr(self, name):
                raise InvalidArgumentError(f"{name} is empty: give at least one number")
            for number in getattr(self, name):
                check_count(name, number)

    def ratios(self, model: nn.Module) -> list[float]:
        """The ratios to measure for a network, each once, ascending."""
        if self.p_prune:
            return sorted(set(self.p_prune))
        own = sparsity(model).ratio
        return [ratio for ratio in RATIOS if ratio == 0 or ratio > own]


def speed_sweep(
    model: nn.Module,
    image: Tensor,
    grid: SpeedGrid | None = None,
    *,
    name: str = "",
    weights: str = "",
    done: Collection[tuple[Any, ...]] = (),
    measure: Callable[[int], Measure] | None = None,
) -> Iterator[SpeedRow]:
    """Prune a network at some ratios, and measure it dense and accelerated.

    The network is as it was afterwards. Its weights may be random where only the speed counts.

    Args:
        model: the network; it may have zeros already.
        image: one input, without the dimension of the batch.
        grid: what to measure.
        name: of the network, for the rows.
        weights: where its weights are from, for the rows.
        done: the keys of rows that need not be measured again.
        measure: gives for a number of threads what measures; default `Stopwatch`.

    Yields:
        A row for each batch size, number of threads and ratio.
    """
    grid = grid or SpeedGrid()
    device = device_of(model)
    shared: dict[str, Any] = {
        "model": name or type(model).__name__,
        "weights": weights,
        "input_size": "x".join(map(str, image.shape)),
        **columns_of(grid.options),
        "seed": grid.options.seed or 0,
        "device": device_name(device),
    }
    with evaluation_mode(model):
        digest, ratios = weights_sha256(model), grid.ratios(model)
        for batch_size, threads, ratio in product(grid.batch_sizes, grid.threads, ratios):
            asked = shared | {"p_prune": ratio, "batch_size": batch_size, "threads": threads}
            if tuple(asked[column] for column in SpeedRow.asked()) in done:
                continue
            images = image.expand(batch_size, *image.shape).contiguous()
            watch = Stopwatch(device, threads) if measure is None else measure(threads)
            yield SpeedRow(
                **asked, **_measured(model, images, grid, ratio, threads, watch),
                weights_sha256=digest, versions=versions(),
            )  # fmt: skip


def _measured(
    model: nn.Module,
    images: Tensor,
    grid: SpeedGrid,
    ratio: float,
    threads: int,
    measure: Measure,
) -> dict[str, Any]:
    with ExitStack() as stack:
        if ratio:
            stack.enter_context(pruned(model, ratio, **vars(grid.options)))
        found = sparsity(model)
        if found.zeros:
            made = stack.enter_context(
                accelerate(model, images, threads=threads, measure=measure, progress=False)
            )
            (seconds,) = made.seconds
            counts = (sum(one.chosen != DENSE for one in made.layers), len(made.layers))
        else:
            with thread_count(threads), torch.no_grad():
                dense = measure({DENSE: lambda: model(images)})[DENSE]
            seconds, counts = (dense, dense), (0, 0)
        parameters = list(model.parameters())
        return {
            "achieved": found.ratio,
            "prunable": found.total,
            "param_count": sum(p.numel() for p in parameters) / 1e6,
            "dense_seconds": seconds[0],
            "seconds": seconds[1],
            "replaced": counts[0],
            "found": counts[1],
            "processor": machine(device_of(model), threads)["processor"],
            "dtype": str(parameters[0].dtype).removeprefix("torch."),
        }
