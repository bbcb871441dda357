"""From a model to its candidates: find what competes, score it, choose the smallest."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, TypedDict, Unpack

import torch
from torch import nn

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.memory_order import flattened, joined, side_by_side
from secateurs._validation import check_choice, check_ratio, make_generator
from secateurs.criteria import Score, check_score
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import InvalidArgumentError
from secateurs.masks.granularity import GRANULARITIES, Units, units_of
from secateurs.originals.restore_weights import look_closely
from secateurs.parameters.coverage import Barrier, no_barrier
from secateurs.parameters.coverage_count import warn_of_coverage
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import separate_targets_in
from secateurs.selection.candidates import Candidates, Levels
from secateurs.selection.sharded.sharded_threshold import choose_parts
from secateurs.selection.threshold import candidate_masks
from secateurs.selection.tie_breaking import Marks
from secateurs.selection.unit_scores import score_all

SCOPES = ("global", "layer")


class SelectOptions(TypedDict, total=False):
    """The keyword arguments of `select`, for the functions that pass them on."""

    granularity: str
    scope: str
    score: Score
    layers: Layers | None
    include: Patterns | None
    exclude: Patterns | None
    generator: torch.Generator | None
    seed: int | None


def select(
    model: nn.Module,
    p_prune: float,
    *,
    granularity: str = "weight",
    scope: str = "global",
    score: Score = "magnitude",
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
) -> Candidates:
    """Choose the ``k = round(p_prune * n)`` units with the smallest scores, exactly.

    Ties go to the earlier unit: in the order of ``named_parameters``, then by flat index. Original
    weights are scored, also while the model is pruned; weights that were trained since they were
    pruned are scored as they are.

    Args:
        model: the network; it is not changed.
        p_prune: the ratio of units, from 0 to 1 inclusive.
        granularity: ``"weight"`` (one element), ``"kernel"`` (one 2-D kernel of a convolution) or
            ``"filter"`` (one output channel).
        scope: ``"global"`` (all units compete) or ``"layer"`` (each parameter on its own).
        score: ``"magnitude"`` (L1 norm), ``"gradient"``, ``"taylor"``, ``"random"``, or a function
            that takes a `Target` and returns a tensor of scores.
        layers: which layers compete; see `secateurs.find_targets`.
        include: only these; see `secateurs.find_targets`.
        exclude: not these; see `secateurs.find_targets`.
        generator: for ``score="random"``; its state advances.
        seed: for ``score="random"``, instead of a generator.

    Returns:
        The candidates; `Candidates.draw` turns them into masks.

    Warns:
        CoverageWarning: less than one half of the model's weights competes, though neither
            ``include`` nor ``exclude`` names what is left out.

    Raises:
        InvalidArgumentError: a ratio outside [0, 1], an unknown name, a NaN score, nothing to
            prune, random scores without generator and seed, layers that compute another weight
            from theirs in ``forward``, or weights that are views of one memory.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 5)
        >>> candidates = select(model, 0.3)
        >>> candidates.count, candidates.total
        (6, 20)
    """
    return choose(
        ModelContents(model),
        p_prune,
        granularity=granularity,
        scope=scope,
        score=score,
        layers=layers,
        include=include,
        exclude=exclude,
        generator=generator,
        seed=seed,
    )


def choose(
    contents: ModelContents,
    p_prune: float,
    *,
    warn: bool = True,
    barrier: Barrier = no_barrier,
    **options: Unpack[SelectOptions],
) -> Candidates:
    """`select`, for those who prune in other ways.

    Args:
        contents: of the network; it is not changed.
        p_prune: the ratio of units.
        warn: whether to warn if less than one half of the weights competes.
        barrier: what the warning must not advise; see `secateurs.parameters.coverage.Barrier`.
        **options: the other arguments of `select`.
    """
    contents.group.agree("select", {"model": contents, "p_prune": p_prune, **options})
    p_prune = check_ratio("p_prune", p_prune)
    units, competing = _scored(contents, barrier if warn else None, **options)
    local = _chosen(competing, p_prune, contents.group)
    return Candidates(units, dict(zip(units, local, strict=True)), contents.group)


def select_levels(
    model: nn.Module,
    ratios: Sequence[float],
    *,
    warn: bool = True,
    barrier: Barrier = no_barrier,
    **options: Unpack[SelectOptions],
) -> Levels:
    """Choose the candidates of several ratios at once.

    Args:
        model: the network; it is not changed.
        ratios: values of p_prune, at most 255 different ones.
        warn: whether to warn if less than one half of the weights competes.
        barrier: what the warning must not advise; see `secateurs.parameters.coverage.Barrier`.
        **options: the keyword arguments of `select`.

    Returns:
        One byte a unit, from which the candidates of each ratio follow by one comparison.

    Raises:
        InvalidArgumentError: as `select`, or no ratio, or more than 255.
    """
    contents = ModelContents(model)
    group = contents.group
    group.agree("select_levels", {"model": contents, "ratios": ratios, **options})
    if not isinstance(ratios, Iterable):
        raise InvalidArgumentError(f"ratios must be several values of p_prune; write [{ratios!r}]")
    ordered = tuple(sorted({check_ratio("p_prune", ratio) for ratio in ratios}))
    if not 1 <= len(ordered) <= 255:
        raise InvalidArgumentError(f"give 1 to 255 values of p_prune, got {len(ordered)}")
    units, competing = _scored(contents, barrier if warn else None, **options)
    values = [scores.values for several in competing for scores in several]
    level = side_by_side(values, torch.uint8)
    flats = [flattened(one.zero_()) for one in level]
    for ratio in ordered:
        marks = map(flattened, _chosen(competing, ratio, group))
        for total, marked in joined(list(zip(flats, marks, strict=True))):
            total += ~marked
    return Levels(ordered, units, dict(zip(units, level, strict=True)), group)


def _scored(
    contents: ModelContents,
    barrier: Barrier | None,
    *,
    granularity: str = "weight",
    scope: str = "global",
    score: Score = "magnitude",
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
) -> tuple[dict[str, Units], list[list[Scores]]]:
    """Check the arguments, score the units, and group those that compete with each other."""
    granularity = check_choice("granularity", granularity, GRANULARITIES)
    scope = check_choice("scope", scope, SCOPES)
    score = check_score(score)
    group, random = contents.group, score == "random"
    needed = "score='random'" if random and not group.is_distributed else None
    source = make_generator(generator, seed, needed_for=needed)
    named: dict[str, Any] = {"layers": layers, "include": include, "exclude": exclude}
    targets = separate_targets_in(contents, **named)
    look_closely(contents.modules, group)
    units = [units_of(target, granularity) for target in targets]
    if not any(one.count for one in units):
        raise InvalidArgumentError("the chosen weights are all empty: there is nothing to prune")
    if barrier is not None:
        warn_of_coverage(contents, targets, **named, barrier=barrier)
    with group.shared(source) if random else nullcontext(source) as same:
        scores = score_all(targets, units, score, same, group)
    names = [target.name for target in targets]
    competing = [[one] for one in scores] if scope == "layer" else [scores]
    return dict(zip(names, units, strict=True)), competing


def _chosen(
    competing: Sequence[Sequence[Scores]], p_prune: float, group: ProcessGroup
) -> list[torch.Tensor]:
    """Mark the candidates among those units of each parameter that lie on this rank."""
    if group.is_sharded:
        return list(choose_parts(competing, p_prune, group).values())
    # All masks in one piece of memory, so that draws need not care for the number of tensors.
    masks = Marks.empty([scores.values for several in competing for scores in several]).masks
    first = 0
    with group.together():
        for several in competing:
            marks = Marks(masks[first : first + len(several)])
            total = sum(scores.values.numel() for scores in several)
            # round() as in torch.nn.utils.prune: halves go to the even number.
            candidate_masks(several, round(p_prune * total), marks)
            first += len(several)
    group.check_replicas(
        "the sum of the candidates (the weights must be equal)", lambda: _sum(masks)
    )
    return masks


def _sum(masks: Sequence[torch.Tensor]) -> int:
    """A number that hardly two sets of masks have in common; made at the speed of reading them."""
    total = 0
    for (flat,) in joined([(flattened(mask),) for mask in masks]):
        words = flat.numel() // 8 * 8 if flat.data_ptr() % 8 == 0 else 0
        total += int(flat[:words].view(torch.int64).sum()) + int(flat[words:].sum())
    return total
