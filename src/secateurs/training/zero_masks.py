"""Masks taken from the zeros that weights have."""

from collections.abc import Sequence

from torch import nn

from secateurs.distributed.dtensor import part_like
from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.originals.module_state import original_of
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.parameters.prunable_parameters import countable_targets
from secateurs.parameters.target import Target, all_parameters
from secateurs.training.mask_state import nonzero


def masks_from_zeros(
    model: nn.Module,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> Masks:
    """Masks that prune what is zero now, as in a model that was loaded from a pruned checkpoint.

    Args:
        model: the network; it is not changed. All ranks of a sharded model must call together.
        layers: which parameters to look at, see `secateurs.find_targets`; by default, and without
            ``include`` and ``exclude``, those that are pruned, and if none is, all that can be.
        include: see ``layers``.
        exclude: see ``layers``.

    Returns:
        A mask for each parameter that has a zero.

    Raises:
        InvalidArgumentError: there is no zero, or a parameter has nothing else, which no training
            would change.
    """
    chosen: Sequence[Target] = ()
    if layers is None and include is None and exclude is None:
        chosen = [t for t in all_parameters(model).values() if _is_pruned(t)]
    chosen = chosen or countable_targets(model, layers=layers, include=include, exclude=exclude)
    kept = {t.name: part_like(nonzero(t.parameter), t.parameter) for t in chosen}
    every = Masks.from_tensors(kept)
    counts = every.table
    empty = [layer.name for layer in counts if layer.total and layer.zeros == layer.total]
    if empty:
        raise InvalidArgumentError(
            f"all weights of {empty[0]} are zero, and would stay so: choose others by "
            f"masks_from_zeros(model, exclude={empty[0]!r})"
        )
    if not counts.zeros:
        raise InvalidArgumentError(
            "no weight is zero, so there is nothing to hold: prune the model first, as by "
            "secateurs.global_prune(model, 0.5), or hand in masks"
        )
    return Masks({layer.name: every.units[layer.name] for layer in counts if layer.zeros})


def _is_pruned(target: Target) -> bool:
    return any(original_of(module, attribute) is not None for module, attribute in target.places)
