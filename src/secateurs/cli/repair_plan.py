"""The options of ``secateurs repair``, checked, as the library takes them."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateurs.cli.repairing_options import RepairImages, RepairPruning, RepairRunning
from secateurs.cli.row_columns import selection_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.repair.allocation import allocate
from secateurs.repair.input_moments import observed_inputs
from secateurs.selection._select import select
from secateurs.selection.selection_options import SelectionOptions


def read_selection(pruning: RepairPruning, seed: int) -> SelectionOptions:
    """Which units compete, and how.

    Raises:
        InvalidArgumentError: an unknown name, or options that exclude each other.
    """
    options = selection_of(pruning, seed)
    if options.criterion.needs_gradients:
        raise InvalidArgumentError(
            f"--score {options.score_name} needs labels, which a repair does without: write lamp, "
            "magnitude, wanda or obs"
        )
    if options.scope != "global" and (pruning.allocation or pruning.ratios_from):
        raise InvalidArgumentError(
            f"--scope {options.scope} says how many units each layer loses, and so does "
            "--allocation or --ratios-from: leave one of them out"
        )
    return options


def check_output(asked: RepairImages, running: RepairRunning) -> None:
    """Refuse a file that cannot be meant.

    Raises:
        InvalidArgumentError: it has another ending, or is the dense network's.
    """
    output = running.output
    if output is None:
        return
    if output.suffix != ".safetensors":
        raise InvalidArgumentError(
            f"--output must be a file such as {output.with_suffix('.safetensors')}, got {output}"
        )
    given = Path(asked.weights) if asked.weights else None
    if given is not None and given.is_file() and output.exists() and output.samefile(given):
        raise InvalidArgumentError(
            f"--output {output} would replace the dense network's weights: give another file"
        )


def choose_masks(
    model: nn.Module,
    pruning: RepairPruning,
    ratios: Mapping[str, float] | None,
    options: SelectionOptions,
    calibration: Tensor,
) -> Masks:
    """Choose what is pruned; the scores that need inputs get those of the calibration images."""
    which: dict[str, Any] = {f.name: getattr(options, f.name) for f in fields(options)}
    if not options.criterion.is_random:
        which["seed"] = None
    observed = options.criterion.needs_inputs
    with observed_inputs(model, calibration) if observed else nullcontext():
        if ratios is None and pruning.allocation is None and not pruning.keep_at_least:
            return select(model, pruning.p_prune or 0.0, **which).draw()
        usual = "uniform" if options.scope == "layer" else "global"
        which["scope"] = "global"  # the allocation says how much each layer loses
        return allocate(
            model, pruning.p_prune, ratios or pruning.allocation or usual,
            keep_at_least=pruning.keep_at_least, **which,
        ).draw()  # fmt: skip
