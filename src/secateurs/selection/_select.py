"""Selection: find the prunable parameters of a model, score them, and choose the candidates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import nn

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.memory_order import flattened, joined, side_by_side
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks.granularity import Units, units_of
from secateurs.originals.model_lock import changing
from secateurs.originals.restore_weights import compare_all_values
from secateurs.parameters.coverage import Barrier, no_barrier
from secateurs.parameters.coverage_count import warn_of_coverage
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import separate_targets_in
from secateurs.parameters.target import Target
from secateurs.selection.candidates import Candidates, Levels
from secateurs.selection.neighbours import check_neighbours, choose_neighbours
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.sharded_threshold import choose_sharded
from secateurs.selection.shown_keywords import shows
from secateurs.selection.threshold import candidate_masks
from secateurs.selection.tie_breaking import Marks
from secateurs.selection.unit_scores import score_all


@shows(SelectionOptions)
def select(
    model: nn.Module,
    p_prune: float | None = None,
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
        p_prune: the ratio of units, from 0 to 1 inclusive; with a ``scope`` N:M it may be left out.
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
            from theirs in ``forward``, weights that are views of one memory, or with the scope N:M
            weights whose inputs do not fall into groups of M.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 5)
        >>> candidates = select(model, 0.3)
        >>> candidates.count, candidates.total
        (6, 20)
    """
    contents = ModelContents(model)
    given = read_options(select, contents, options, p_prune=p_prune, generator=generator)
    return choose(contents, p_prune, given, generator)


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

    Example:
        >>> import torch
        >>> levels = select_levels(torch.nn.Linear(4, 5), [0.1, 0.3])
        >>> [levels.at(ratio).count for ratio in levels.ratios]
        [2, 6]
    """
    if not isinstance(ratios, Iterable):
        raise InvalidArgumentError(f"ratios must be several values of p_prune; write [{ratios!r}]")
    ratios, contents = list(ratios), ModelContents(model)
    given = read_options(select_levels, contents, options, ratios=ratios, generator=generator)
    return choose_levels(contents, ratios, given, generator)


def read_options(
    function: Callable[..., object],
    contents: ModelContents,
    keywords: SelectionKeywords,
    **others: object,
) -> SelectionOptions:
    """Read the options of a call, and check that all ranks were called with the same arguments.

    Args:
        function: the function that was called, for the error.
        contents: of the network.
        keywords: the options, as keyword arguments.
        **others: the other arguments.

    Raises:
        InvalidArgumentError: an option is unknown or wrong, or the ranks' arguments differ.
    """
    contents.group.agree(function.__name__, {"model": contents, **others, **keywords})
    return SelectionOptions.read(function, keywords)


def choose(
    contents: ModelContents,
    p_prune: float | Mapping[str, float] | None,
    options: SelectionOptions,
    generator: torch.Generator | None = None,
    *,
    warn: bool = True,
    barrier: Barrier = no_barrier,
) -> Candidates:
    """`select` for callers inside the library, whose options are read already.

    Args:
        contents: of the network; it is not changed.
        p_prune: the ratio of units; or that of each parameter that competes, by its name, then
            with itself alone.
        options: the options, the same on all ranks.
        generator: as for `select`.
        warn: whether to warn if less than one half of the weights competes.
        barrier: why the caller cannot prune a parameter, so that the warning does not advise to
            include it; see `secateurs.parameters.coverage.Barrier`.
    """
    ratio: float | Mapping[str, float]
    if isinstance(p_prune, Mapping):
        ratio = {name: options.ratio(own) for name, own in p_prune.items()}
    else:
        ratio = options.ratio(p_prune)
    with changing(contents.model):  # a weight that is half pruned would look as if it had trained
        found = scored(contents, options, generator, barrier if warn else None)
        local = found.chosen(ratio)
    return Candidates(found.units, dict(zip(found.units, local, strict=True)), contents.group)


def choose_levels(
    contents: ModelContents,
    ratios: Sequence[float],
    options: SelectionOptions,
    generator: torch.Generator | None = None,
    *,
    warn: bool = True,
    barrier: Barrier = no_barrier,
) -> Levels:
    """`select_levels` for callers inside the library; the arguments are those of `choose`."""
    ordered = tuple(sorted({options.ratio(ratio) for ratio in ratios}))
    if not 1 <= len(ordered) <= 255:
        raise InvalidArgumentError(f"give 1 to 255 values of p_prune, got {len(ordered)}")
    with changing(contents.model):
        found = scored(contents, options, generator, barrier if warn else None)
        level = side_by_side([one.values for one in found.scores], torch.uint8)
        flats = [flattened(one.zero_()) for one in level]
        for ratio in ordered:
            marks = map(flattened, found.chosen(ratio))
            for total, marked in joined(list(zip(flats, marks, strict=True))):
                total += ~marked
    return Levels(ordered, found.units, dict(zip(found.units, level, strict=True)), contents.group)


@dataclass(frozen=True)
class Scored:
    """The scores of the units, and who competes with whom.

    Attributes:
        targets: the weights.
        units: those of each weight, by its name.
        scores: of each weight.
        options: of the selection.
        group: the ranks that hold the model, which call together.
    """

    targets: Sequence[Target]
    units: dict[str, Units]
    scores: list[Scores]
    options: SelectionOptions
    group: ProcessGroup

    @property
    def competing(self) -> list[list[Scores]]:
        """The scores in groups; those of one group compete. Not for the scope N:M."""
        return [[one] for one in self.scores] if self.options.scope == "layer" else [self.scores]

    def chosen(self, p_prune: float | Mapping[str, float]) -> list[torch.Tensor]:
        """Mark the candidates among this rank's units of each parameter."""
        if isinstance(p_prune, Mapping):
            rows = zip(self.targets, self.units.items(), self.scores, strict=True)
            return [
                replace(self, targets=[target], units={name: own}, scores=[one]).chosen(
                    p_prune[name]
                )[0]
                for target, (name, own), one in rows
            ]
        neighbours = self.options.neighbours
        if neighbours is None and self.group.is_sharded:  # no rank has all scores
            return choose_sharded(self.competing, p_prune, self.group)
        with self.group.together():
            if neighbours is None:
                masks = self._smallest(p_prune)
            else:
                pruned = neighbours.pruned if p_prune else 0
                masks = choose_neighbours(self.scores, self.targets, pruned, neighbours.of)
        self.group.check_replicas(
            "the sum of the candidates (the weights must be equal)", lambda: _sum(masks)
        )
        return masks

    def _smallest(self, p_prune: float) -> list[torch.Tensor]:
        # The masks are adjacent in memory, so that a draw goes through all of them as one tensor.
        masks = Marks.empty([one.values for one in self.scores]).masks
        first = 0
        for several in self.competing:
            marks = Marks(masks[first : first + len(several)])
            total = sum(scores.values.numel() for scores in several)
            # round() as in torch.nn.utils.prune: halves go to the even number.
            candidate_masks(several, round(p_prune * total), marks)
            first += len(several)
        return masks


def scored(
    contents: ModelContents,
    options: SelectionOptions,
    generator: torch.Generator | None,
    barrier: Barrier | None,
) -> Scored:
    """Find and score the units; the caller holds the model's lock.

    Args:
        contents: of the network.
        options: the options, the same on all ranks.
        generator: as for `select`.
        barrier: as for `choose`; None if it is not to warn.
    """
    group, criterion, choice = contents.group, options.criterion, options.layer_choice
    needed_for = Argument("score", options.score) if criterion.is_random else None
    source = group.generator(generator, options.seed, needed_for)
    targets = separate_targets_in(contents, choice)
    if options.neighbours is not None:
        check_neighbours(targets, options.neighbours, options.exclude)
    compare_all_values(contents.modules, group)
    units = [units_of(target, options.granularity) for target in targets]
    if not any(one.count for one in units):
        raise InvalidArgumentError("the chosen weights are all empty: there is nothing to prune")
    if barrier is not None:
        warn_of_coverage(contents, targets, choice, barrier=barrier)
    with group.shared(source) if criterion.is_random else nullcontext(source) as same:
        scores = score_all(targets, units, criterion, same, group)
    by_name = {target.name: own for target, own in zip(targets, units, strict=True)}
    return Scored(targets, by_name, scores, options, group)


def _sum(masks: Sequence[torch.Tensor]) -> int:
    """A checksum of masks, as fast as reading them."""
    total = 0
    for (flat,) in joined([(flattened(mask),) for mask in masks]):
        words = flat.numel() // 8 * 8 if flat.data_ptr() % 8 == 0 else 0
        total += int(flat[:words].view(torch.int64).sum()) + int(flat[words:].sum())
    return total
