"""The options of ``secateurs budget``."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from secateurs.cli.option_types import (
    COMPETING,
    CompetingInScope,
    MaybeWhole,
    RepairStep,
    ResumableOutput,
    Several,
    Whole,
    panel,
)

NAMED_DATA = (
    *("digits", "mnist", "fashion-mnist", "kmnist", "usps"),
    *("cifar10", "cifar100", "svhn", "stl10"),
)
"""Data sets that have a training split, of which images can calibrate a repair."""


@panel("What is claimed", 2)
@dataclass(frozen=True, kw_only=True)
class Claim:
    """The margin, and what is done to stay within it.

    Args:
        max_drop: Points of top-1 accuracy that the drop must stay below.
        confidence: Of the claim, for all networks that are tried together.
        repair: Steps after each pruning: batchnorm, channels, reconstruct, sparsegpt, distill.
        calibration: Images for the repair, or for --score wanda or obs, of which no label is read:
            a folder with images anywhere in it, or a data set by name (its training split); of
            named data its own, unless you say so. None of them may be scored.
        calibration_images: Use this many of them, spread evenly.
    """

    max_drop: float = 1.0
    confidence: float = 0.95
    repair: Several[RepairStep] = ()
    calibration: str | None = None
    calibration_images: Whole = 256


@panel("How to prune", 3)
@dataclass(frozen=True, kw_only=True)
class BudgetPruning(CompetingInScope):
    """How to prune; the ratio is what is looked for.

    Args:
        seed: Of random scores.
    """

    seed: Annotated[Whole, COMPETING] = 0


@panel("Running", 4)
@dataclass(frozen=True, kw_only=True)
class BudgetRunning(ResumableOutput):
    """The device, the loader and the output.

    Args:
        batch_size: Images in a batch; a network is given up at the end of one.
        workers: Processes that decode images.
        amp: Run under autocast.
        output: Folder for model.safetensors and budget.json; default secateurs-results/NAME.
        resume: Continue an interrupted search, or delete what it has scored and search again.
    """

    batch_size: Annotated[Whole, Parameter(alias="-b")] = 25
    workers: Annotated[MaybeWhole, Parameter(alias="-j")] = None
    amp: bool = False
