"""The options of ``secateurs sensitivity``."""

from dataclasses import dataclass
from typing import Literal

from secateurs.cli.option_types import (
    Competing,
    MaybeRatio,
    Ratio,
    Ratios,
    Several,
    Whole,
    panel,
)

LayerStep = Literal["batchnorm", "channels", "reconstruct", "sparsegpt"]


@panel("How to prune", 2)
@dataclass(frozen=True, kw_only=True)
class LayerPruning(Competing):
    """How each layer is pruned alone.

    Args:
        ratios: Ratios of each layer's units that are candidates; default 0.25 0.5 0.75 0.9.
        p_bern: Probability with which each candidate is pruned.
        layers: Kinds of layers that are measured: conv, conv2d, linear, attention, experts, all,
            ...; default conv, linear, attention and experts.
        include: Measure only these, globs on the names of parameters or of modules around them.
        exclude: Do not measure these, globs on such names.
        seed: Of random scores and draws.
    """

    ratios: Ratios = ()
    p_bern: Ratio = 1.0
    seed: Whole = 0


@panel("How to repair", 3)
@dataclass(frozen=True, kw_only=True)
class LayerRepair:
    """What follows the pruning of each layer, if the network is to be repaired in the end.

    Args:
        repair: Steps: batchnorm, channels, reconstruct, sparsegpt.
        calibration: Images without labels for the repair, or for --score wanda or obs: a folder, or
            digits, mnist, cifar10, ... (their training images). None of them may be measured.
            Without it one half of the images of DIR is used, and the other is measured.
        calibration_images: Use this many of those of --calibration, spread evenly.
    """

    repair: Several[LayerStep] = ()
    calibration: str | None = None
    calibration_images: Whole = 128


@panel("What to choose from it", 4)
@dataclass(frozen=True, kw_only=True)
class Allocating:
    """How ratios are proposed.

    Args:
        allocate: Propose a ratio for each layer, this much in all, and write them to ratios.json
            for sweep and prune --ratios-from.
        cost: What a layer's pruning costs: divergence from the dense network's outputs (needs no
            labels), loss (its increase) or accuracy (its drop).
        unlabelled: Read no labels: DIR is any folder of images, and the dense network's classes
            count as right. Images that choose ratios should not be those that score them.
    """

    allocate: MaybeRatio = None
    cost: Literal["divergence", "loss", "accuracy"] = "divergence"
    unlabelled: bool = False
