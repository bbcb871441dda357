"""Scores of the elements or units of one weight, by a criterion."""

import torch

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.memory_order import as_integers
from secateurs.criteria import Criterion
from secateurs.distributed.dtensor import local_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks.granularity import Units
from secateurs.originals.original import version_of
from secateurs.originals.restore_weights import copy_bits
from secateurs.parameters.target import Target


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
