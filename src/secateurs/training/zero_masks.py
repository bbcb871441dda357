"""Masks taken from the zeros that weights have."""

from collections.abc import Sequence

from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.parameters.layer_choice import LayerChoice, Layers, Patterns
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import countable_targets
from secateurs.parameters.target import Target
from secateurs.training.mask_state import nonzero


def masks_from_zeros(
    model: nn.Module,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> Masks:
    """Masks that prune the weights that are zero now, as after loading a pruned checkpoint.

    Args:
        model: the network; it is not changed. All ranks of a sharded model must call together.
        layers: which parameters to take, see `secateurs.find_targets`; by default, and without
            ``include`` and ``exclude``, those that are pruned, or all prunable ones if none is.
        include: see ``layers``.
        exclude: see ``layers``.

    Returns:
        A mask for each parameter that has a zero.

    Raises:
        InvalidArgumentError: there is no zero, or a parameter that is not pruned has only zeros,
            as some have before training, and would never learn.
    """
    contents = ModelContents(model)
    pruned = {name: t for name, t in contents.targets.items() if t.original is not None}
    chosen: Sequence[Target] = ()
    if layers is None and include is None and exclude is None:
        chosen = list(pruned.values())
    chosen = chosen or countable_targets(contents, LayerChoice(layers, include, exclude))
    kept = {t.name: t.shard.as_dtensor(nonzero(t)) for t in chosen}
    every = Masks.from_tensors(kept)
    counts = every.table
    all_zero = [layer.name for layer in counts if layer.total and layer.zeros == layer.total]
    empty = [name for name in all_zero if name not in pruned]
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
