"""The options of ``secateurs speed``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from secateurs.cli.option_types import (
    Granularity,
    MaybeWhole,
    Scope,
    Several,
    Whole,
    panel,
    scores,
)


@panel("What to measure", 1)
@dataclass(frozen=True, kw_only=True)
class SpeedNetwork:
    """The network, and how it is run.

    Args:
        arch: torchvision:NAME (or just NAME), timm:NAME, hf:NAME, a folder after timm: or hf:,
            package.module:function, or digits.
        weights: A .safetensors or .pt file, such as that of a retrained network, the name of
            published weights, or random, which is as fast.
        num_classes: Classes of a weights FILE, if not the usual number.
        img_size: Input size in pixels.
        batch_sizes: Images that are run at once.
        threads: Threads of the CPU; default 1 and 2, where there are 2 cores.
        device: auto, cpu, cuda, cuda:1, mps, ...
    """

    arch: Annotated[str, Parameter(alias="-a")] = "digits"
    weights: str | None = None
    num_classes: MaybeWhole = None
    img_size: MaybeWhole = None
    batch_sizes: Annotated[Several[int], Parameter(alias="-b")] = (1, 16)
    threads: Several[int] = ()
    device: str = "cpu"


@panel("How to prune", 2)
@dataclass(frozen=True, kw_only=True)
class SpeedPruning:
    """What is compared.

    Args:
        p_prune: Ratios of units that are pruned; 0 leaves the zeros of the weights as they are.
            Default 0, 0.5, 0.7, 0.8, 0.9, 0.95 and 0.98, without those that the weights have.
        granularity: What is pruned as one unit.
        scope: Who competes with whom: global (all units) or layer.
        score: The name of a criterion.
        layers: Kinds of layers that compete: conv, conv2d, linear, attention, experts, all, ...
        include: Prune only these, globs on the names of parameters or of modules around them.
        exclude: Do not prune these, globs on such names.
        seed: Of random scores and random weights.
    """

    p_prune: Several[float] = ()
    granularity: Granularity = "weight"
    scope: Scope = "global"
    score: Annotated[str, scores(data_free=True)] = "magnitude"
    layers: Several[str] = ()
    include: Several[str] = ()
    exclude: Several[str] = ()
    seed: Whole = 0


@panel("Output", 3)
@dataclass(frozen=True, kw_only=True)
class SpeedOutput:
    """Where the results go.

    Args:
        output: Folder for results; default secateurs-results/NAME_speed.
        resume: Continue an interrupted measurement, or delete its results and measure again.
        title: Title of the plot.
    """

    output: Annotated[Path | None, Parameter(alias="-o")] = None
    resume: Annotated[bool, Parameter(negative="--overwrite")] = True
    title: str | None = None
