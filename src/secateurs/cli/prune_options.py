"""The options of ``secateurs prune``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from secateurs.cli.option_types import DataFree, MaybeRatio, MaybeWhole, Ratio, panel


@panel("How to prune", 1)
@dataclass(frozen=True, kw_only=True)
class FilePruning(DataFree):
    """How to prune the weights in a file.

    Args:
        p_prune: Ratio of units that are candidates, 0 to 1.
        ratios_from: A file with the ratio of each tensor, as sensitivity --allocate writes it, in
            place of --p-prune.
        p_bern: Probability with which each candidate is pruned.
        scope: Who competes with whom: global (all units), layer, or N:M, such as 2:4: of every 4
            consecutive inputs 2 are kept, so that --p-prune is 0.5 and may be left out.
        layers: Kinds of layers that compete: conv, conv2d, linear, attention, experts, all, ...; by
            default the weights of convolutions, linear layers and experts, known by name and shape.
        include: Prune only these, globs on the names of tensors or of modules around them.
        exclude: Do not prune these, globs on such names.
        seed: For a p_bern between 0 and 1, and for random scores.
        key: Which weights of a training checkpoint that holds several sets of them:
            state_dict_ema, generator, ...
    """

    p_prune: MaybeRatio = None
    ratios_from: Path | None = None
    p_bern: Ratio = 1.0
    seed: MaybeWhole = None
    key: str | None = None


@panel("What to write", 3)
@dataclass(frozen=True, kw_only=True)
class Writing:
    """What to do with the result.

    Args:
        output: A file, or a folder if IN is one; it may be IN.
        compress: Write zstd streams, NAME.safetensors.zst, which any zstd tool opens;
            secateurs.load_checkpoint and --decompress read them.
        decompress: Decompress what --compress wrote.
        dry_run: Print what would be pruned and the threshold; write nothing.
    """

    output: Annotated[Path | None, Parameter(alias="-o")] = None
    compress: bool = False
    decompress: bool = False
    dry_run: bool = False
