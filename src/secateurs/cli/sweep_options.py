"""The options of ``secateurs sweep``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from secateurs.cli.option_types import (
    MaybeWhole,
    NetworkAndData,
    PruningGrid,
    RepairStep,
    ResumableOutput,
    Several,
    Whole,
    panel,
)


@panel("What to measure", 1)
@dataclass(frozen=True, kw_only=True)
class SweepImages(NetworkAndData):
    """The network and the images."""


@panel("How to prune", 2)
@dataclass(frozen=True, kw_only=True)
class SweepPruning(PruningGrid):
    """What is compared; by default the ratios 0, 0.1, ..., 0.9 with p_bern 1.

    Args:
        p_prune: Ratios of units that are candidates, 0 to 1; default 0 to 0.9.
        p_bern: Probability with which each candidate is pruned; default 1.
        ratios_from: A file with the ratio of each parameter, as sensitivity --allocate writes it,
            in place of --p-prune and --scope.
        draws: Draws to average where 0 < p_bern < 1 or the score is random.
        seed: Of the first draw; draw i has seed + i.
    """

    ratios_from: Path | None = None
    draws: Whole = 1
    seed: Whole = 0


@panel("How to repair", 3)
@dataclass(frozen=True, kw_only=True)
class SweepRepair:
    """What follows the pruning; each network is then measured both as it is and repaired.

    Args:
        repair: Steps, in order: batchnorm, channels, reconstruct, sparsegpt, distill.
        calibration: Images without labels, which repairs and the scores wanda and obs need: a
            folder with images anywhere in it, or digits, mnist, cifar10, ... (their training
            images). None of them may be scored.
        calibration_images: Use this many of them, spread evenly.
    """

    repair: Several[RepairStep] = ()
    calibration: str | None = None
    calibration_images: Whole = 128


@panel("Preprocessing", 4)
@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What to change in the network's own preprocessing.

    Args:
        img_size: Input size in pixels.
        crop_pct: Input size divided by resized size, such as 0.875.
        crop_mode: center, squash or border, as timm names them.
        interpolation: bilinear, bicubic, nearest, ...
        mean: Subtracted from pixels of 0 to 1; 1 or 3 numbers.
        std: What they are divided by then; 1 or 3 numbers.
    """

    img_size: MaybeWhole = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    mean: Several[float] = ()
    std: Several[float] = ()


@panel("Running", 5)
@dataclass(frozen=True, kw_only=True)
class SweepRunning(ResumableOutput):
    """The device, the loader and the output.

    Args:
        batch_size: Images in a batch; fewer run at once when memory runs out.
        workers: Processes that decode images.
        amp: Run under autocast.
        title: Title of the plot.
    """

    batch_size: Annotated[Whole, Parameter(alias="-b")] = 64
    workers: Annotated[MaybeWhole, Parameter(alias="-j")] = None
    amp: bool = False
    title: str | None = None
