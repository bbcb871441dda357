"""Sparsity for each layer by its shape: Erdős-Rényi kernels."""

import math
from collections.abc import Mapping, Sequence

from torch import nn

from secateurs._validation import check_ratio
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.parameters.prunable_parameters import find_targets


def erk_ratios(
    model: nn.Module,
    ratio: float,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> dict[str, float]:
    """How much of each parameter to prune, by the Erdős-Rényi-Kernel rule.

    A layer keeps a share in proportion to (n_in + n_out + w + h) / (n_in * n_out * w * h), the sum
    of its dimensions over their product, and at most all of it (Evci et al. 2020, section 3,
    equation 1; Mocanu et al. 2018 without kernels). So small layers stay dense.

    Args:
        model: the network; it is not changed.
        ratio: of all weights together, which is met exactly.
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
    counts = erk_counts(shapes, sizes, check_ratio("ratio", ratio))
    return {name: count / sizes[name] if sizes[name] else 0.0 for name, count in counts.items()}


def erk_counts(
    shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], ratio: float
) -> dict[str, int]:
    """How many units to prune of each parameter; together exactly the ratio of all.

    Args:
        shapes: of the parameters.
        sizes: how many units each has.
        ratio: of all units.
    """
    total = sum(sizes.values())
    kept_in_all = total - round(ratio * total)
    shares = _shares(shapes, sizes, kept_in_all)
    kept = {name: math.floor(share * sizes[name]) for name, share in shares.items()}
    # Those that lost most by rounding down get what is left, one each.
    behind = sorted(kept, key=lambda name: kept[name] - shares[name] * sizes[name])
    for name in behind[: kept_in_all - sum(kept.values())]:
        kept[name] += 1
    return {name: sizes[name] - kept[name] for name in sizes}


def _shares(
    shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], kept_in_all: int
) -> dict[str, float]:
    raw = {name: sum(shape) / max(math.prod(shape), 1) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in raw if name not in dense]
        weight = sum(raw[name] * sizes[name] for name in rest)
        scale = (kept_in_all - sum(sizes[name] for name in dense)) / weight if weight else 0.0
        full = {name for name in rest if scale * raw[name] > 1}
        if not full:
            return {name: 1.0 if name in dense else scale * raw[name] for name in raw}
        dense |= full
