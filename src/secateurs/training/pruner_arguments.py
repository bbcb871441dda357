"""The arguments of a `Pruner`, and checks of which can be combined."""

from itertools import pairwise

from torch import optim

from secateurs._validation import check_ratio
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.masks.apply import matching_targets
from secateurs.masks.mask import Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.selection.scopes import NOfM
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.training._hold import Averages
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth, Regrowth
from secateurs.training.schedules import Schedule


class PrunerOptions(SelectionKeywords, total=False):
    """The keyword arguments of `Pruner`, for the callbacks that pass them on."""

    regrow: Regrowth | None
    keep_at_least: float
    averaged: Averages


def check_schedule(schedule: object, regrow: object) -> None:
    """Check that a schedule has ratios from 0 to 1, does not go down, and allows the regrowth.

    Raises:
        InvalidArgumentError: it does not.
    """
    if not isinstance(schedule, Schedule):
        raise InvalidArgumentError(
            "schedule must be a Schedule, such as OneShot(0.9) or Cubic(0.9, end=1000), "
            f"got {schedule!r}"
        )
    prunings = [(step, check_ratio("the schedule's ratio", r)) for step, r in schedule.prunings]
    for (step, ratio), (later, lower) in pairwise(prunings):
        if lower < ratio and not isinstance(regrow, MagnitudeRegrowth):
            raise InvalidArgumentError(
                f"the schedule goes down, from {ratio:g} at step {step} to {lower:g} at step "
                f"{later}, and pruned weights do not come back: write one that does not, or "
                "regrow=MagnitudeRegrowth()"
            )
    if schedule.rewind is not None and isinstance(regrow, MagnitudeRegrowth):
        raise InvalidArgumentError(
            Argument("rewind"), " does not go with ",
            Advice("MagnitudeRegrowth", "--regrow magnitude"),
            ", whose pruned weights go on learning: leave one of them away",
        )  # fmt: skip


def check_neighbours(
    options: SelectionOptions, schedule: Schedule, regrow: object, keep_at_least: float
) -> None:
    """Check that a schedule, regrowth and what is kept go with a scope N:M.

    Raises:
        InvalidArgumentError: they cannot.
    """
    scope = NOfM.read(options.scope)
    if scope is None:
        return
    for _, ratio in schedule.prunings:
        options.ratio(ratio)
    if isinstance(regrow, GradientRegrowth):
        raise InvalidArgumentError(
            Advice("GradientRegrowth", "--regrow gradient"),
            " grows weights wherever gradients are large, which ",
            Argument("scope", options.scope), " forbids: write ",
            Advice("regrow=None or regrow=MagnitudeRegrowth()", "--regrow none or magnitude"),
            ", or another scope",
        )  # fmt: skip
    if keep_at_least > 1 - scope.ratio:
        raise InvalidArgumentError(
            Argument("keep_at_least", keep_at_least),
            f" keeps more than the {1 - scope.ratio:g} that ",
            Argument("scope", options.scope),
            " keeps of each layer: leave it out",
        )


def check_pruned_before(contents: ModelContents, masks: Masks, options: SelectionOptions) -> None:
    """Check that a scope N:M allows what was pruned before.

    Raises:
        InvalidArgumentError: of some M consecutive inputs, fewer than N are left.
    """
    scope = NOfM.read(options.scope)
    if scope is None:
        return
    for target, mask in matching_targets(contents, masks):
        groups = target.layout.rows(mask.keep).reshape(-1, scope.of)
        with contents.group.together():
            if len(groups) and int(groups.sum(1).min()) < scope.kept:
                raise InvalidArgumentError(
                    f"more of {target.name} is pruned already than ",
                    Argument("scope", options.scope),
                    " prunes, and pruned weights do not come back: call secateurs.restore(model) "
                    "before",
                )


def check_regrowth(regrow: object, optimizers: list[optim.Optimizer]) -> None:
    """Check the regrowth, and that the optimizers allow it.

    Raises:
        InvalidArgumentError: it is of another type, or LBFGS would see gradients of pruned weights.
    """
    if not isinstance(regrow, MagnitudeRegrowth | GradientRegrowth | None):
        raise InvalidArgumentError(
            "regrow must be None, MagnitudeRegrowth() or GradientRegrowth(every=100, until=1000), "
            f"got {regrow!r}"
        )
    if isinstance(regrow, GradientRegrowth) and any(
        isinstance(one, optim.LBFGS) for one in optimizers
    ):
        raise InvalidArgumentError(
            "GradientRegrowth reads gradients of pruned weights, which LBFGS must not see: use "
            "another optimizer, or regrow=None"
        )
