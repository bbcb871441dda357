"""The options of ``secateurs speed``."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from secateurs.cli.option_types import (
    DataFree,
    MaybeWhole,
    Ratios,
    ResumableOutput,
    Several,
    Whole,
    panel,
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
    """

    arch: Annotated[str, Parameter(alias="-a")] = "digits"
    weights: str | None = None
    num_classes: MaybeWhole = None
    img_size: MaybeWhole = None
    batch_sizes: Annotated[Several[int], Parameter(alias="-b")] = (1, 16)
    threads: Several[int] = ()


@panel("How to prune", 2)
@dataclass(frozen=True, kw_only=True)
class SpeedPruning(DataFree):
    """What is compared.

    Args:
        p_prune: Ratios of units that are pruned; 0 leaves the zeros of the weights as they are.
            Default 0, 0.5, 0.7, 0.8, 0.9, 0.95 and 0.98, without those that the weights have.
        seed: Of random scores and random weights.
    """

    p_prune: Ratios = ()
    seed: Whole = 0


@panel("Running", 3)
@dataclass(frozen=True, kw_only=True)
class SpeedOutput(ResumableOutput):
    """Where the results go.

    Args:
        device: cpu (default), auto, cuda, cuda:1, mps, ...
        title: Title of the plot.
    """

    device: str = "cpu"
    title: str | None = None
