"""From a model to its candidates: find what competes, score it, choose the smallest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Unpack

import torch
from torch import nn

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.memory_order import flattened, joined, side_by_side
from secateurs._validation import check_ratio, make_generator
from secateurs.criteria import Score
from secateurs.distributed.dtensor import local_of, part_like
from secateurs.distributed.process_group import Team, parameters_of, team_of
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks.granularity import Units, units_of
from secateurs.originals.restore_weights import look_closely
from secateurs.parameters.coverage import Barrier, no_barrier, warn_of_coverage
from secateurs.parameters.layer_choice import Layers, Patterns, is_picked, pattern_list
from secateurs.parameters.prunable_parameters import find_targets
from secateurs.parameters.recomputed_weights import refuse_recomputed
from secateurs.parameters.shared_memory import refuse_overlaps
from secateurs.parameters.target import Target, all_parameters
from secateurs.selection.candidates import Candidates, Levels
from secateurs.selection.raw_scores import score_units
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.selection.threshold import candidate_masks
from secateurs.selection.tie_breaking import Marks


@shows(SelectionOptions)
def select(
    model: nn.Module,
    p_prune: float,
    *,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Candidates:
    """Choose the ``k = round(p_prune * n)`` units with the smallest scores, exactly.

    Ties go to the earlier unit: in the order of ``named_parameters``, then by flat index. Original
    weights are scored, also while the model is pruned; weights that were trained since they were
    pruned are scored as they are.

    Args:
        model: the network; it is not changed.
        p_prune: the ratio of units, from 0 to 1 inclusive.
        generator: for random scores, instead of a seed; its state advances.
        **options: the fields of `secateurs.SelectionOptions`.

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
    given = read_options(select, model, options, p_prune=p_prune, generator=generator)
    return choose(model, p_prune, given, generator)


@shows(SelectionOptions)
def select_levels(
    model: nn.Module,
    ratios: Sequence[float],
    *,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Levels:
    """Choose the candidates of several ratios at once.

    Args:
        model: the network; it is not changed.
        ratios: values of p_prune, at most 255 different ones.
        generator: for random scores, instead of a seed; its state advances.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        One byte a unit, from which the candidates of each ratio follow by one comparison.

    Raises:
        InvalidArgumentError: as `select`, or no ratio, or more than 255.
    """
    if not isinstance(ratios, Iterable):
        raise InvalidArgumentError(f"ratios must be several values of p_prune; write [{ratios!r}]")
    ratios = list(ratios)
    given = read_options(select_levels, model, options, ratios=ratios, generator=generator)
    return choose_levels(model, ratios, given, generator)


def read_options(
    function: Callable[..., object],
    model: nn.Module,
    keywords: SelectionKeywords,
    **others: object,
) -> SelectionOptions:
    """The options of a call, which must be alike on all ranks that hold a model.

    Args:
        function: what is called, for the error.
        model: the network.
        keywords: the function's keyword arguments.
        **others: its other arguments.

    Raises:
        InvalidArgumentError: an option is unknown or wrong, or the ranks' arguments differ.
    """
    team = team_of(model)
    if team is not None:
        agree(team, model, function.__name__, **others, **keywords)
    return SelectionOptions.read(function, keywords)


def choose(
    model: nn.Module,
    p_prune: float,
    options: SelectionOptions,
    generator: torch.Generator | None = None,
    *,
    warn: bool = True,
    barrier: Barrier = no_barrier,
) -> Candidates:
    """`select`, for those who prune in other ways.

    Args:
        model: the network; it is not changed.
        p_prune: the ratio of units.
        options: the options, alike on all ranks.
        generator: as for `select`.
        warn: whether to warn if less than one half of the weights competes.
        barrier: what the warning must not advise; see `secateurs.parameters.coverage.Barrier`.
    """
    p_prune = check_ratio("p_prune", p_prune)
    team = team_of(model)
    units, groups = scored(model, team, options, generator, barrier if warn else None)
    return Candidates(units, _chosen(groups, p_prune, team), team)


def choose_levels(
    model: nn.Module,
    ratios: Sequence[float],
    options: SelectionOptions,
    generator: torch.Generator | None = None,
    *,
    warn: bool = True,
    barrier: Barrier = no_barrier,
) -> Levels:
    """`select_levels`, for those who prune in other ways; the arguments are those of `choose`."""
    ordered = tuple(sorted({check_ratio("p_prune", ratio) for ratio in ratios}))
    if not 1 <= len(ordered) <= 255:
        raise InvalidArgumentError(f"give 1 to 255 values of p_prune, got {len(ordered)}")
    team = team_of(model)
    units, groups = scored(model, team, options, generator, barrier if warn else None)
    scores = [scores for group in groups for scores in group]
    level = side_by_side([s.values for s in scores], torch.uint8)
    flats = [flattened(one.zero_()) for one in level]
    chosen: dict[str, torch.Tensor] = {}
    for ratio in ordered:
        chosen = _chosen(groups, ratio, team)
        marks = [flattened(local_of(mask)) for mask in chosen.values()]
        for total, marked in joined(list(zip(flats, marks, strict=True))):
            total += ~marked
    made = zip(chosen.items(), level, strict=True)
    return Levels(ordered, units, {name: part_like(one, mask) for (name, mask), one in made}, team)


def agree(team: Team, model: nn.Module, action: str, **given: object) -> None:
    """Check that all ranks do the same to the same model; see `Team.agree`."""
    team.agree(action, {"model": parameters_of(model)} | given)


def check_together(
    model: nn.Module,
    targets: Sequence[Target],
    layers: Layers | None = None,
    exclude: Patterns | None = None,
) -> None:
    """Refuse what no mask does justice to: layers that do not keep zeros, and shared memory.

    Args:
        model: the network.
        targets: what competes.
        layers: what the caller gave; a class that it names is pruned in any case.
        exclude: what the caller gave; its memory must not be written either.

    Raises:
        InvalidArgumentError: there is such a layer, or two weights are views of one memory.
    """
    asked = layers if isinstance(layers, Sequence) and not isinstance(layers, str) else (layers,)
    places = [(t.name, module) for t in targets for module, attribute in t.places
              if attribute == "weight"]  # fmt: skip
    refuse_recomputed(places, [t.name for t in targets], [one for one in asked if one is not None])
    kept: list[Target] = []
    if exclude is not None:
        patterns, chosen = pattern_list("exclude", exclude), {t.name for t in targets}
        others = (t for name, t in all_parameters(model).items() if name not in chosen)
        kept = [target for target in others if any(is_picked(target, p) for p in patterns)]
    refuse_overlaps([(t.name, t.parameter) for t in (*targets, *kept)], len(targets))


def scored(
    model: nn.Module,
    team: Team | None,
    options: SelectionOptions,
    generator: torch.Generator | None,
    barrier: Barrier | None,
) -> tuple[dict[str, Units], list[list[Scores]]]:
    """Score the units, and group those that compete with each other; warn if given a barrier."""
    score, random = options.score, options.criterion.is_random
    needed = Argument("score", score) if random and team is None else None
    source = make_generator(generator, options.seed, needed_for=needed)
    layers, include, exclude = options.layers, options.include, options.exclude
    targets = find_targets(model, layers=layers, include=include, exclude=exclude)
    check_together(model, targets, layers, exclude)
    look_closely(model)
    units = {target.name: units_of(target, options.granularity) for target in targets}
    if not any(u.count for u in units.values()):
        raise InvalidArgumentError("the chosen weights are all empty: there is nothing to prune")
    if barrier is not None:
        warn_of_coverage(
            model, targets, layers=layers, include=include, exclude=exclude, barrier=barrier
        )
    if team is not None and random:
        with team.shared(source) as same:
            scores = _scores(targets, units, score, same, team)
    else:
        scores = _scores(targets, units, score, source, team)
    return units, [[s] for s in scores] if options.scope == "layer" else [scores]


def _scores(
    targets: Sequence[Target],
    units: Mapping[str, Units],
    score: Score,
    source: torch.Generator | None,
    team: Team | None,
) -> list[Scores]:
    if team is None or not team.sharded:
        with nullcontext() if team is None else team.together():
            return [score_units(target, units[target.name], score, source) for target in targets]
    from secateurs.selection.sharded.sharded_criteria import score_parts

    return score_parts(targets, units, score, source, team)


def _chosen(
    groups: Sequence[Sequence[Scores]], p_prune: float, team: Team | None
) -> dict[str, torch.Tensor]:
    if team is not None and team.sharded:
        from secateurs.selection.sharded.sharded_threshold import choose_parts

        return choose_parts(groups, p_prune, team)
    # All masks in one piece of memory, so that draws need not care for the number of tensors.
    masks = Marks.empty([scores.values for group in groups for scores in group]).masks
    chosen: dict[str, torch.Tensor] = {}
    with nullcontext() if team is None else team.together():
        for group in groups:
            _mark(group, p_prune, masks, chosen)
    if team is not None:
        team.agree("select", {"the sum of the candidates (the weights must be equal)": _sum(masks)})
    return chosen


def _mark(
    group: Sequence[Scores],
    p_prune: float,
    masks: list[torch.Tensor],
    chosen: dict[str, torch.Tensor],
) -> None:
    """Choose the candidates among those that compete; their masks lie behind the earlier ones."""
    marks = Marks(masks[len(chosen) : len(chosen) + len(group)])
    total = sum(scores.values.numel() for scores in group)
    # round() as in torch.nn.utils.prune: halves go to the even number.
    candidate_masks(group, round(p_prune * total), marks)
    chosen |= {scores.name: mask for scores, mask in zip(group, marks.masks, strict=True)}


def _sum(masks: Sequence[torch.Tensor]) -> int:
    """A number that hardly two sets of masks have in common; made at the speed of reading them."""
    total = 0
    for (flat,) in joined([(flattened(mask),) for mask in masks]):
        words = flat.numel() // 8 * 8 if flat.data_ptr() % 8 == 0 else 0
        total += int(flat[:words].view(torch.int64).sum()) + int(flat[words:].sum())
    return total
