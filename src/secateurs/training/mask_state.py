"""Masks by the zeros of a model, scores changed by masks, and states of other devices and ranks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from secateurs._tensors.memory_order import as_integers
from secateurs._validation import check_count
from secateurs.distributed.dtensor import full_of, reshard
from secateurs.distributed.process_group import ProcessGroup
from secateurs.distributed.shard import shard_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks._sparsity import count_nonzero
from secateurs.masks.apply import local_mask, matching_targets
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.layer_choice import LayerChoice, Layers, Patterns
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import countable_targets
from secateurs.parameters.target import Target
from secateurs.training.zeroing import Masked, Zeroing, same_shape_mask

Change = Callable[[Target, torch.Tensor], torch.Tensor]
"""Takes a target and the scores of its elements or units, and returns other scores."""


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


def pruned_now(contents: ModelContents, every: Masks) -> Masks:
    """The masks by which a model is pruned, in the units of ``every``: all of a unit is zero."""
    found: dict[str, Mask] = {}
    for target, mask in matching_targets(contents, every):
        found[target.name] = mask
        if target.original is not None:
            units = mask.units
            # As a whole, since a unit may be divided over ranks.
            whole = full_of(target.shard.as_dtensor(nonzero(target)))
            found[target.name] = Mask(units.shard.of(units.pool(whole.float()) > 0), units)
    return Masks(found, contents.group.holders)


def filled(masks: Masks, value: float, *, where_kept: bool) -> Change:
    """Give all kept elements (or all pruned ones) the same score."""
    return _changed(
        masks, lambda scores, keep: scores.masked_fill(keep if where_kept else ~keep, value)
    )


def favoured(masks: Masks, margin: float) -> Change:
    """Multiply the scores of kept elements by 1 + ``margin``."""
    return _changed(masks, lambda scores, keep: torch.where(keep, scores * (1 + margin), scores))


def _changed(masks: Masks, rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Change:
    """Change the scores on this rank; the result is a DTensor where the parameter is one."""

    def change(target: Target, scores: torch.Tensor) -> torch.Tensor:
        mask = masks.units[target.name]
        units = mask.units
        if units.pooled and tuple(scores.shape) == units.unit:
            shard, keep = units.shard, mask.keep
        else:
            shard, keep = target.shard, local_mask(mask, target)
        here = shard.of(scores)
        return shard.as_dtensor(rule(here, keep.to(here.device).expand(here.shape)))

    return change


def saved_masks(masks: Masks) -> dict[str, torch.Tensor]:
    """The masks as tensors, for a state that is saved; DTensors of a sharded model."""
    return {name: mask.units.shard.as_dtensor(mask.keep) for name, mask in masks.units.items()}


def loaded_masks(contents: ModelContents, like: Masks, saved: Mapping[str, torch.Tensor]) -> Masks:
    """The result of `saved_masks`, on the devices and ranks of other masks of the same model."""
    found: dict[str, Mask] = {}
    for name, mask in like.units.items():
        keep = mask.units.shard.of(saved[name]).to(mask.keep.device)
        found[name] = Mask(keep.contiguous().clone(), mask.units)
    return Masks(found, contents.group.holders)


def check_state(
    state: Mapping[str, Any], mine: Mapping[str, Any], owner: str, same: Sequence[str]
) -> None:
    """Check that a saved state fits a `Pruner` or a `GradientPruner`.

    Args:
        state: the saved one.
        mine: its own.
        owner: the name of its class.
        same: what must be the same in both.

    Raises:
        InvalidArgumentError: it is not such a state, or of other arguments or another model.
    """
    if not isinstance(state, Mapping) or not {*same, "masks"} <= state.keys():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError(
            f"the state must be what state_dict() of a {owner} returned, got {type(state).__name__}"
        )
    for name in same:
        if state[name] != mine[name]:
            raise InvalidArgumentError(
                f"the state was saved under {name} {state[name]}, and this {owner} has "
                f"{mine[name]}: make it with the same to go on"
            )
    shapes = [
        {name: tuple(keep.shape) for name, keep in one["masks"].items()} for one in (state, mine)
    ]
    for how, (one, other) in {"a mask": shapes, "no mask": shapes[::-1]}.items():
        name = next((name for name in one if one[name] != other.get(name)), None)
        if name is not None:
            raise InvalidArgumentError(
                "the state is of another model, or of other layers or granularity: it has "
                f"{how} for {name} of shape {one[name]}"
            )
    missing = sorted(mine.keys() - state.keys())
    if missing:
        raise InvalidArgumentError(f"the state has no {missing[0]!r}, as state_dict() returns it")
    for name in ("steps", "draws"):
        if name in mine:
            check_count(name, state[name], 0)


@torch.no_grad()
def zero_what_grew(contents: ModelContents, before: Masks, masks: Masks) -> None:
    """Set the weights to zero that ``masks`` keep and ``before`` prunes.

    Grown weights begin at zero, also where ``weight_orig`` holds other values of them.
    """
    rows: list[Masked] = []
    for target, mask in matching_targets(contents, masks):
        pruned = Mask(mask.keep.logical_not(), mask.units)
        unchanged = combined(before.units[target.name], pruned, both=False)
        local = target.local
        rows.append((same_shape_mask(local_mask(unchanged, target), local), [local]))
    Zeroing()(rows)


def combined(first: Mask, second: Mask, *, both: bool) -> Mask:
    """What both masks keep, or what either keeps."""
    keep = first.keep & second.keep if both else first.keep | second.keep
    return Mask(keep, first.units)


def nonzero(target: Target) -> torch.Tensor:
    """Where this rank's shard of a parameter is not zero, for any dtype."""
    bits = as_integers(target.local)
    return bits + bits != 0  # twice the bits of -0 are zero too


def kept_units(masks: Masks, group: ProcessGroup) -> dict[str, int]:
    """How many units of each parameter are kept.

    Args:
        masks: of the parameters.
        group: the ranks over which one copy of the model is divided; all must call together.
    """
    counts = count_nonzero([(m.keep, m.units.shard) for m in masks.units.values()], group)
    return {name: kept for name, (kept, _) in zip(masks.units, counts, strict=True)}


def moved_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor on the device of another one, and divided over the ranks like it."""
    shard = shard_of(like)
    return shard.as_dtensor(shard.of(value).to(like.device).contiguous())


@torch.no_grad()
def copied_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all tensors of a model's state dict."""
    reshard(model.modules())
    state = model.state_dict().items()
    return {name: v.detach().clone() for name, v in state if isinstance(v, torch.Tensor)}


@torch.no_grad()
def write_values(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Write copied values back, into the same Parameters and buffers."""
    reshard(model.modules())
    now = model.state_dict()
    for name, value in values.items():
        now[name].copy_(value)
