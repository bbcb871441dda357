"""Sparsity for each layer by its shape: Erdős-Rényi kernels."""

import math

from torch import nn

from secateurs._validation import check_ratio
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.parameters.prunable_parameters import find_targets
from secateurs.selection.layer_counts import counts_by_shares, erk_shares


def erk_ratios(
    model: nn.Module,
    ratio: float,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> dict[str, float]:
    """How much of each parameter to prune, by the Erdős-Rényi-Kernel rule.

    See `secateurs.selection.layer_counts.erk_shares`. What a small layer cannot keep, since it has
    no more weights, the others keep.

    Args:
        model: the network; it is not changed.
        ratio: the ratio of all weights together, met exactly.
        layers: see `secateurs.find_targets`, as for ``include`` and ``exclude``.
        include: see ``layers``.
        exclude: see ``layers``.

    Returns:
        The ratio to prune of each parameter.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 8))
        >>> erk_ratios(model, 0.75)  # the small layer stays dense
        {'0.weight': 0.84375, '1.weight': 0.0}
    """
    targets = find_targets(model, layers=layers, include=include, exclude=exclude)
    shapes = {target.name: tuple(target.parameter.shape) for target in targets}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(check_ratio("ratio", ratio) * sum(sizes.values()))
    counts = counts_by_shares(sizes, total, sizes, erk_shares(shapes))
    return {name: count / sizes[name] if sizes[name] else 0.0 for name, count in counts.items()}
