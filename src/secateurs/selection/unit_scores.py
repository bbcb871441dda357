"""Scores of units by a criterion: those on this rank, in a single process all."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.memory_order import as_integers
from secateurs.criteria import Criterion
from secateurs.distributed.dtensor import local_of
from secateurs.distributed.process_group import Array, ProcessGroup
from secateurs.distributed.shard import Shard
from secateurs.errors import InvalidArgumentError
from secateurs.masks.granularity import Units, are_cut
from secateurs.originals.original import version_of
from secateurs.originals.restore_weights import copy_bits
from secateurs.parameters.target import Target

_BLOCK = 1 << 20


@dataclass(frozen=True)
class ShardScores(Scores):
    """The scores of this rank's units of one parameter.

    Attributes:
        shard: which of all units these are.
        sum_to: if ``values`` are sums over this rank's elements, which are still to be added up
            over the ranks: the dtype of the scores. Else None.
    """

    shard: Shard
    sum_to: torch.dtype | None = None


def score_all(
    targets: Sequence[Target],
    units: Sequence[Units],
    criterion: Criterion,
    generator: torch.Generator | None,
    group: ProcessGroup,
) -> list[Scores]:
    """Score this rank's units of every target.

    If several ranks have elements of one unit, their sums are added up, and each of these ranks
    gets the score.

    Args:
        targets: the weights that compete.
        units: those of each target.
        criterion: how they are scored.
        generator: the source of random scores, in the same state on every rank.
        group: the ranks that hold the model; all call together.

    Raises:
        InvalidArgumentError: as `raw_scores`, on all ranks.
    """
    with group.together():
        pairs = zip(targets, units, strict=True)
        scored = [_score(target, own_units, criterion, generator) for target, own_units in pairs]
    return [_added_up(one, group) for one in scored]


def score_units(
    target: Target, units: Units, criterion: Criterion, generator: torch.Generator | None
) -> Scores:
    """Score every unit of ``target``; the arguments and errors are those of `raw_scores`."""
    raw = raw_scores(target, units, criterion, generator)
    if not units.pooled or tuple(raw.values.shape) != units.shape:
        # The scores are per unit already: `Scores.absolute` spares a copy of absolute values.
        return raw
    values = raw.values.abs() if raw.absolute else raw.values
    return Scores(raw.name, units.pool(values), raw.absolute)


def raw_scores(
    target: Target, units: Units, criterion: Criterion, generator: torch.Generator | None
) -> Scores:
    """Score every element or every unit of ``target``, as the criterion does.

    Args:
        target: the weight.
        units: how its elements fall into units.
        criterion: how it is scored.
        generator: where random scores come from.

    Raises:
        InvalidArgumentError: the criterion returns a wrong shape or type, finds no gradient, or
            writes into the weight.
    """
    if criterion.function is None:
        device = generator.device if generator is not None else torch.device("cpu")
        drawn = torch.rand(units.unit, generator=generator, dtype=torch.float64, device=device)
        return Scores(target.name, drawn.to(target.parameter.device), absolute=False)
    kept = [] if criterion.is_built_in else _copies(target)
    values = _checked(criterion.function(target), target, units)
    written = [(weight, copy) for weight, copy, count in kept if _differs(weight, copy, count)]
    for weight, copy in written:
        copy_bits(weight, copy)
    if written:
        raise InvalidArgumentError(
            f"the score function wrote into {target.name}, as abs_() does: write such as abs()"
        )
    return Scores(target.name, values, criterion.absolute)


def _score(
    target: Target, units: Units, criterion: Criterion, generator: torch.Generator | None
) -> Scores:
    shard = units.placement
    if shard is None:
        return score_units(target, units, criterion, generator)
    if criterion.is_random and generator is not None and generator.device.type == "cpu":
        return _random(target, shard, generator)
    # A function may fail on one rank alone; then all ranks must fail before the next collective.
    with nullcontext() if criterion.is_built_in else target.group.together():
        raw = raw_scores(target, units, criterion, generator)
    if tuple(raw.values.shape) != units.shape:
        return ShardScores(raw.name, shard.of(raw.values), raw.absolute, shard)
    elements = target.shard
    values = elements.of(raw.values)
    if not units.pooled:
        return ShardScores(raw.name, values, raw.absolute, shard)
    values = values.abs() if raw.absolute else values
    if not are_cut(units, elements):
        local = Units(elements.local, elements.local, shard.local)
        pooled = (units if elements.is_whole else local).pool(values)
        return ShardScores(raw.name, pooled, raw.absolute, shard)
    sums = np.zeros(units.unit)
    if elements.counted:
        _add_elements(sums, values, units, elements)
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    local_sums = torch.from_numpy(sums).to(values.device)
    return ShardScores(raw.name, local_sums, raw.absolute, shard, sum_to=dtype)


def _random(target: Target, shard: Shard, generator: torch.Generator) -> Scores:
    """Draw the numbers of all units, as one process would; keep those of this rank's units."""
    drawn = np.empty(shard.local)
    flat, taken, total = drawn.reshape(-1), 0, torch.Size(shard.shape).numel()
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        numbers = torch.rand(stop - start, generator=generator, dtype=torch.float64, device="cpu")
        indices = shard.indices_of(np.arange(taken, min(taken + _BLOCK, len(flat))))
        indices = indices[: np.searchsorted(indices, stop)]
        flat[taken : taken + len(indices)] = numbers.numpy()[indices - start]
        taken += len(indices)
    values = torch.from_numpy(drawn).to(target.parameter.device)
    return ShardScores(target.name, values, absolute=False, shard=shard)


def _added_up(one: Scores, group: ProcessGroup) -> Scores:
    if not isinstance(one, ShardScores) or one.sum_to is None:
        return one
    # Added in float64 and rounded once, as in one process: see `Units.pool`.
    sums = torch.from_numpy(group.sum(one.values.cpu().numpy()))
    return replace(one, values=sums.to(one.values.device, one.sum_to), sum_to=None)


def _add_elements(sums: Array, values: torch.Tensor, units: Units, elements: Shard) -> None:
    """Add this rank's elements to the sums of their units."""
    rows = elements.indices
    if units.view == units.shape:
        pooled = values.sum(units.pooled, keepdim=True, dtype=torch.float64)
        index = [np.zeros(1, np.int64) if d in units.pooled else r for d, r in enumerate(rows)]
        sums[np.ix_(*index)] = pooled.cpu().numpy()
        return
    # The groups of a transposed convolution are adjacent along its first dimension.
    kernels = values.flatten(2).sum(2, dtype=torch.float64).cpu().numpy()
    groups = rows[0] // units.view[1]
    np.add.at(sums.reshape(units.view[0], units.view[2]), np.ix_(groups, rows[1]), kernels)


_Copy = tuple[torch.Tensor, torch.Tensor, int]  # a tensor, its values, and torch's count of writes


def _copies(target: Target) -> list[_Copy]:
    """Copies of the tensors whose values a criterion may read as the weight."""
    original = target.original
    read = [target.parameter] if original is None else [target.parameter, original.values]
    return [(tensor, tensor.detach().clone(), version_of(tensor)) for tensor in read]


def _differs(weight: torch.Tensor, copy: torch.Tensor, count: int) -> bool:
    if version_of(weight) == count:
        return False
    now, then = (as_integers(local_of(tensor.detach())) for tensor in (weight, copy))
    return not torch.equal(now, then)


def _checked(scores: object, target: Target, units: Units) -> torch.Tensor:
    if not isinstance(scores, torch.Tensor):
        raise InvalidArgumentError(
            f"the score of {target.name} must be a tensor, not {type(scores).__name__}"
        )
    if scores.is_meta:
        raise InvalidArgumentError(
            f"the score of {target.name} is on the meta device and has no values: compute it on cpu"
        )
    scores = scores.detach().to(target.parameter.device)
    if scores.is_complex():
        raise InvalidArgumentError(f"the score of {target.name} is complex; return real numbers")
    if scores.layout is not torch.strided:
        scores = scores.to_dense()
    if not scores.is_floating_point():
        scores = scores.to(torch.float64)
    if tuple(scores.shape) in (units.shape, units.unit):
        return scores
    raise InvalidArgumentError(
        f"the score of {target.name} has shape {tuple(scores.shape)}; return one score for each "
        f"weight, {units.shape}, or for each unit, {units.unit}"
    )
