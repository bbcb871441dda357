"""How important a weight is. A new criterion is a new function of two or three lines here.

Each takes a `Target` and returns a tensor in the shape of the weight whose absolute value is the
score of each element; `secateurs.masks.granularity` pools them into units. The smallest are pruned
first.
"""

from collections.abc import Callable

import torch

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.quantization_scales import (
    further_name,
    scale_name,
    scale_steps,
    scaling_names,
    spread,
    unknown_name,
)
from secateurs._validation import check_choice
from secateurs.errors import InvalidArgumentError
from secateurs.masks.granularity import Units
from secateurs.parameters.target import Target

ScoreFunction = Callable[[Target], torch.Tensor]
Score = str | ScoreFunction


def magnitude(target: Target) -> torch.Tensor:
    """|w|; pooled, the L1 norm of the unit (Han et al. 2015, section 3).

    A weight in float8 with a scale beside it, as quantised models have, counts with its scale.
    """
    weight = target.weight
    return weight if weight.element_size() > 1 else _scaled(target, weight)


def gradient(target: Target) -> torch.Tensor:
    """|dL/dw|, from the gradient that the caller's backward passes left."""
    return target.grad.detach()


def taylor(target: Target) -> torch.Tensor:
    """|w * dL/dw|, the first-order change of the loss (Molchanov et al. 2017, equation 8)."""
    weight, grad = target.weight, target.grad.detach()
    # In float32 at least: a product of halves would underflow into ties.
    dtype = torch.float64 if torch.float64 in (weight.dtype, grad.dtype) else torch.float32
    return weight.to(dtype) * grad.to(dtype)


def _scaled(target: Target, weight: torch.Tensor) -> torch.Tensor:
    """The weight times the scale that its module holds beside it; itself if there is none."""
    module, attribute = target.module, target.attribute
    held = {**vars(module), **module._parameters, **module._buffers}
    beside = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    name, further = scale_name(attribute, beside), further_name(attribute, beside)
    if name is None:
        further = further or unknown_name(attribute, scaling_names(beside))
    if further is not None or (name is not None and target.group.is_sharded):
        raise InvalidArgumentError(
            f"{target.name} is quantised with {further or name} beside it, which is not applied "
            f"{'here' if further else 'over several ranks'}: dequantise it first, or write "
            f"exclude={target.name!r}"
        )
    if name is None:
        return weight
    scale, block = beside[name], getattr(module, "block_size", None)
    known = tuple(block) if isinstance(block, tuple | list) else None
    last = target.outputs_last
    steps = scale_steps(target.name, weight.shape, scale.shape, known, outputs_last=last)
    return weight.float() * spread(scale, weight.shape, steps).to(weight.device)


OF_ELEMENTS: dict[str, ScoreFunction] = {
    "magnitude": magnitude,
    "gradient": gradient,
    "taylor": taylor,
}
"""The criteria that score each element, by the name that people write."""

NEED_GRADIENTS = frozenset({"gradient", "taylor"})
"""Those that read ``target.grad``: what it is must be computed first, and a run is known by it."""

SCORES = (*OF_ELEMENTS, "random")


def needs_gradients(score: Score) -> bool:
    """Whether a score reads gradients; a function may."""
    return callable(score) or score in NEED_GRADIENTS


def check_score(score: Score) -> Score:
    """Return ``score`` if it is a known name or a callable.

    Raises:
        InvalidArgumentError: it is neither.
    """
    return score if callable(score) else check_choice("score", score, SCORES)


def score_units(
    target: Target, units: Units, score: Score, generator: torch.Generator | None
) -> Scores:
    """Score every unit of ``target``; the arguments and errors are those of `raw_scores`."""
    raw = raw_scores(target, units, score, generator)
    if not units.pooled or tuple(raw.values.shape) != units.shape:
        # One element a unit: rank the tensor where it lies, without a copy of its absolute values.
        return raw
    return Scores(
        raw.name, units.pool(raw.values.abs() if raw.absolute else raw.values), raw.absolute
    )


def raw_scores(
    target: Target, units: Units, score: Score, generator: torch.Generator | None
) -> Scores:
    """Score every element or every unit of ``target``, whichever the score is made for.

    Args:
        target: the weight.
        units: how its elements fall into units.
        score: one of `SCORES`, or a function that takes the `Target` (its ``name``, ``weight``,
            ``grad``, ``module``) and returns a score for each element (they are summed over the
            unit) or for each unit.
        generator: where ``random`` draws from.

    Raises:
        InvalidArgumentError: a callable gave a wrong shape or type, or ``gradient`` and ``taylor``
            find no gradient.
    """
    if score == "random":
        device = generator.device if generator is not None else torch.device("cpu")
        drawn = torch.rand(units.unit, generator=generator, dtype=torch.float64, device=device)
        return Scores(target.name, drawn.to(target.parameter.device), absolute=False)
    if callable(score):
        return Scores(target.name, _checked(score(target), target, units), absolute=False)
    return Scores(target.name, OF_ELEMENTS[score](target), absolute=True)


def _checked(scores: object, target: Target, units: Units) -> torch.Tensor:
    if not isinstance(scores, torch.Tensor):
        raise InvalidArgumentError(
            f"the score of {target.name} must be a tensor, not {type(scores).__name__}"
        )
    scores = scores.detach().to(target.parameter.device)
    if scores.is_complex():
        raise InvalidArgumentError(f"the score of {target.name} is complex; return real numbers")
    if not scores.is_floating_point():
        scores = scores.to(torch.float64)
    if tuple(scores.shape) in (units.shape, units.unit):
        return scores
    raise InvalidArgumentError(
        f"the score of {target.name} has shape {tuple(scores.shape)}; return one score for each "
        f"weight, {units.shape}, or for each unit, {units.unit}"
    )
