"""The options of ``secateurs repair``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from secateurs.cli.option_types import (
    COMPETING,
    CompetingInScope,
    MaybeRatio,
    MaybeWhole,
    NetworkAndData,
    Ratio,
    RepairStep,
    ResumableOutput,
    Several,
    Whole,
    panel,
    scores,
)


@panel("What to repair", 1)
@dataclass(frozen=True, kw_only=True)
class RepairImages(NetworkAndData):
    """The network, the images it is repaired from, and those it is scored on.

    Args:
        weights: A .safetensors or .pt file, or the name of published weights: the dense network's.
        data: Images without labels: a folder with images anywhere in it, or digits, mnist,
            cifar10, ... (their training images).
        images: Use this many images without labels, spread evenly.
        split: Which part of the data; default train, where there is one.
        test_data: Labelled images that are scored, for the table alone; a folder as sweep takes
            it, or a named data set.
        test_split: Which part of them: val, test, ...
        limit: Score on this many labelled images, spread evenly.
    """

    images: Whole = 128
    test_data: str | None = None
    test_split: str | None = None


@panel("How to prune", 2)
@dataclass(frozen=True, kw_only=True)
class RepairPruning(CompetingInScope):
    """How much is pruned, and where.

    Args:
        p_prune: Ratio of units that are pruned; default 0.9 for the digits.
        allocation: How many units each layer loses: global (the least important of all), uniform
            (the same ratio), or erk (Evci et al. 2020).
        ratios_from: Instead of --p-prune, a file with the ratio of each parameter, as sensitivity
            --allocate writes it.
        keep_at_least: Ratio of its units that each layer keeps at least.
    """

    p_prune: MaybeRatio = None
    score: Annotated[str, scores(), COMPETING] = "lamp"
    allocation: Literal["global", "uniform", "erk"] | None = None
    ratios_from: Path | None = None
    keep_at_least: Ratio = 0.0


@panel("How to repair", 3)
@dataclass(frozen=True, kw_only=True)
class Repairing:
    """The steps, and how they work.

    Args:
        steps: In order: batchnorm (its statistics from the images), channels (mean and scale of
            each output channel), reconstruct (least squares for the kept weights), sparsegpt
            (chooses the masks of each layer anew), distill (optimizer steps toward the dense
            network). Default batchnorm reconstruct; without BatchNorm layers reconstruct.
        damping: Of reconstruct, as a share of the inputs' mean square.
        iterations: Of distill, at most.
        learning_rate: Of distill, at its highest.
        distill_batch_size: Images for each step of distill.
        features: Weight of the error of some layers' outputs in distill; 0 for the network's
            outputs alone.
        augment: How distill changes images at random: crop-flip, flip, shift, none; auto is
            crop-flip for images of three channels.
        tighten: Share of distill's iterations over which the weights that are pruned go little by
            little, from the dense network's values; 0 for masks that hold from the start.
        seed: Of random scores, and of the order and the changes of images in distill.
    """

    steps: Several[RepairStep] = ()
    damping: float = 0.1
    iterations: Whole = 300
    learning_rate: Annotated[float, Parameter(name="--lr")] = 1e-3
    distill_batch_size: Whole = 32
    features: float = 0.0
    augment: Literal["auto", "crop-flip", "flip", "shift", "none"] = "auto"
    tighten: Ratio = 0.0
    seed: Whole = 0


@panel("Running", 5)
@dataclass(frozen=True, kw_only=True)
class RepairRunning(ResumableOutput):
    """The device, the loader and the output.

    Args:
        batch_size: Images that go through the network at once.
        workers: Processes that decode images.
        output: FILE.safetensors, which loads into the plain network; rows and table go to
            FILE.repair beside it. Default secateurs-results/NAME/repaired.safetensors, and rows
            and table beside that.
    """

    batch_size: Annotated[Whole, Parameter(alias="-b")] = 8
    workers: Annotated[MaybeWhole, Parameter(alias="-j")] = None
