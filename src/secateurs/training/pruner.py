"""One object that prunes a network while it trains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, Unpack

import torch
from torch import nn, optim

from secateurs._validation import check_ratio
from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import matching_targets
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.pruning import apply_masks
from secateurs.selection._select import choose, read_options
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.training._hold import Averages, Hold
from secateurs.training.mask_choice import MaskChoice
from secateurs.training.mask_state import (
    beside,
    check_state,
    copied_values,
    kept_units,
    pruned_now,
    write_values,
    zero_what_grew,
)
from secateurs.training.optimizer_state import Optimizers, check_optimizers
from secateurs.training.pruner_arguments import (
    check_neighbours,
    check_pruned_before,
    check_regrowth,
    check_schedule,
)
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth, Regrowth
from secateurs.training.regrowth_gradients import all_finite, check_gradients
from secateurs.training.schedules import Schedule
from secateurs.training.score_changes import favoured, filled
from secateurs.training.straight_through import StraightThrough

_REMEDY = "call pruner.replace_optimizer(optimizer) with the new one"


@shows(SelectionOptions)
class Pruner:
    """Prunes a network further and further while it trains, and holds its zeros meanwhile.

    Make it after the model was moved, wrapped and given an optimizer, and call `step` after each
    ``optimizer.step()``, before ``zero_grad()``; or once an epoch, then the schedule counts epochs.
    Between its steps `hold` keeps pruned weights at zero.

    Without regrowth what is pruned stays pruned. At each pruning ``weight_orig`` becomes what the
    weights were just before it, so `secateurs.restore` brings back the last dense weights that
    were learned; see the page on training. Step 0 of a schedule happens here, at once; the
    optimizer's state is not touched before the first step.

    Args:
        model: the network.
        optimizer: its optimizer, or a list of all its optimizers.
        schedule: when to prune and to which ratio of units: `OneShot`, `Iterative`, `Cubic`,
            `Constant`, or a `Schedule` of your own.
        regrow: how pruned weights come back: not at all, `MagnitudeRegrowth` (dynamic network
            surgery) or `GradientRegrowth` (RigL).
        floor: the share of its units that each layer keeps at least. With 0, a pruning that would
            empty a layer is an error.
        averaged: averages of the model in which pruned weights become zero too; see `hold`.
        **options: the fields of `secateurs.SelectionOptions`. Criteria that need gradients read
            those of the last step.

    Attributes:
        schedule: what was handed in.
        regrow: what was handed in.
        steps: how many steps were taken.
        masks: what is held now, for every parameter that competes.
        sparsity: the ratio of their weights that is pruned.

    Raises:
        InvalidArgumentError: as `hold` and `secateurs.global_prune`, or the schedule goes down, or
            a layer would be emptied.

    Example:
        >>> import torch
        >>> from secateurs.training import Cubic, Pruner
        >>> model = torch.nn.Linear(20, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> pruner = Pruner(model, optimizer, Cubic(0.9, end=30, every=10))
        >>> for _ in range(40):
        ...     loss = model(torch.ones(1, 20)).square().sum()
        ...     loss.backward()
        ...     optimizer.step()
        ...     pruner.step()
        ...     optimizer.zero_grad()
        >>> pruner.sparsity, int((model.weight == 0).sum())
        (0.9, 180)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        schedule: Schedule,
        *,
        regrow: Regrowth | None = None,
        floor: float = 0.0,
        averaged: Averages = (),
        **options: Unpack[SelectionKeywords],
    ):
        optimizers = check_optimizers(optimizer)
        check_schedule(schedule, regrow)
        check_regrowth(regrow, optimizers)
        self.schedule, self.regrow, self.steps = schedule, regrow, 0
        self._model, self._averaged = model, averaged
        self._put_off = False
        floor = check_ratio("floor", floor)
        contents = ModelContents(model)
        given = read_options(
            Pruner, contents, options, schedule=schedule, regrow=regrow, floor=floor
        )
        check_neighbours(given, schedule, regrow, floor)
        every = choose(contents, 0.0, replace(given, score="magnitude", seed=None)).draw()
        self._choice = MaskChoice(tuple(every), given, floor)
        self.masks = pruned_now(contents, every)
        check_pruned_before(contents, self.masks, given)
        self.sparsity = self.masks.sparsity
        self._units = sum(mask.units.count for mask in self.masks.units.values())
        kept = kept_units(self.masks, contents.group.holders)
        self._ratio = (self._units - sum(kept.values())) / self._units
        self._rewind = copied_values(model) if schedule.rewind is not None else {}
        self._held = self._new_hold(optimizers)
        masks = self._next_masks()
        self._held.begin()
        if masks is not None:
            self._put(masks, states=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        regrow = "" if self.regrow is None else f", {self.regrow}"
        return (
            f"Pruner({self.schedule!r}{regrow}, steps={self.steps}, sparsity={self.sparsity:.4f})"
        )

    def step(self) -> None:
        """Count a step, and prune or regrow where the schedule says so.

        All ranks of a distributed model must call together.

        Raises:
            InvalidArgumentError: a score is NaN, a layer would be emptied, or there are no
                gradients to grow by. The model is unchanged.
        """
        self.steps += 1
        if self.steps == self.schedule.rewind:
            self._rewind = copied_values(self._model)
        masks = self._next_masks()
        if masks is not None:
            self._put(masks)

    def remove(self) -> None:
        """Stop holding; the weights stay as they are, pruned, and ``weight_orig`` beside them."""
        self._held.remove()

    def replace_optimizer(self, optimizer: Optimizers) -> None:
        """Go on with another optimizer, or with several.

        Raises:
            InvalidArgumentError: it does not hold the masked parameters.
        """
        optimizers = check_optimizers(optimizer)
        check_regrowth(self.regrow, optimizers)
        held = self._new_hold(optimizers)
        self._held.remove()
        self._held = held
        apply_masks(self._model, self.masks)
        held.begin()
        held.write_zeros()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the model and the optimizer.

        Only tensors, numbers, texts and dicts of them: ``torch.save`` and a load with
        ``weights_only=True`` do, and so does ``torch.distributed.checkpoint``, which may load it on
        another number of ranks.
        """
        state: dict[str, Any] = {
            "schedule": repr(self.schedule),
            "regrow": repr(self.regrow),
            "steps": self.steps,
            "ratio": self._ratio,
            "put_off": self._put_off,
            "masks": {n: m.units.shard.as_dtensor(m.keep) for n, m in self.masks.units.items()},
        }
        if self.schedule.rewind is not None:
            state["rewind"] = dict(self._rewind)
        if isinstance(self._held, StraightThrough):
            state["dense"] = self._held.dense()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; before or after the model and the optimizer load.

        Raises:
            InvalidArgumentError: it was taken under another schedule or of another model.
        """
        check_state(state, self.state_dict())
        if self.schedule.rewind is not None:
            known = self._rewind
            self._rewind = {n: beside(t, known[n]).clone() for n, t in state["rewind"].items()}
        if isinstance(self._held, StraightThrough):
            self._held.load_dense(state["dense"])
        self.steps, self._ratio, self._put_off = state["steps"], state["ratio"], state["put_off"]
        contents, masks = ModelContents(self._model), dict(self.masks.units)
        for name, mask in masks.items():
            keep = mask.units.shard.of(state["masks"][name]).to(mask.keep.device)
            masks[name] = Mask(keep.contiguous(), mask.units)
        self._apply(Masks(masks, contents.group.holders))

    def _new_hold(self, optimizers: list[optim.Optimizer]) -> Hold:
        kind = StraightThrough if isinstance(self.regrow, MagnitudeRegrowth) else Hold
        return kind(
            self._model,
            optimizers,
            self.masks,
            averaged=self._averaged,
            dense_gradients=isinstance(self.regrow, GradientRegrowth),
            remedy=_REMEDY,
        )

    def _next_masks(self) -> Masks | None:
        """The masks that this step brings, None if it brings none."""
        ratio = self.schedule.ratio_at(self.steps)
        masks = None
        if ratio is not None:
            masks = self._pruned_to(check_ratio("the schedule's ratio", ratio))
        if isinstance(self.regrow, GradientRegrowth) and (
            self._put_off or self.regrow.due(self.steps)
        ):
            return self._regrown(self.regrow, masks or self.masks) or masks
        if isinstance(self.regrow, MagnitudeRegrowth) and masks is None and self._ratio:
            probability = self.regrow.probability(self.steps)
            if self.regrow.due(self.steps) and self._choice.happens(probability, self.steps):
                return self._exchanged(self.regrow, self.masks)
        return masks

    def _pruned_to(self, ratio: float) -> Masks:
        down = round(ratio * self._units) < round(self._ratio * self._units)
        if down and not isinstance(self.regrow, MagnitudeRegrowth):
            raise InvalidArgumentError(
                f"the schedule goes down, from {self._ratio:.4g} to {ratio:.4g} at step "
                f"{self.steps}, and pruned weights do not come back: begin at "
                f"{self._ratio:.4g} or more, or call secateurs.restore(model) before"
            )
        if down and isinstance(self.regrow, MagnitudeRegrowth):
            change = favoured(self.masks, self.regrow.margin)
        else:
            change = filled(self.masks, -torch.inf, where_kept=False)
        contents = ModelContents(self._model)
        start = self.regrow.start if isinstance(self.regrow, GradientRegrowth) else "score"
        if start != "score" and not self._ratio and ratio:
            masks = self._choice.at_random(contents, ratio, start, self.steps)
        else:
            masks = self._choice.by_score(contents, ratio, self.steps, change)
        self._ratio = ratio
        if isinstance(self.regrow, MagnitudeRegrowth) and not down:
            return self._exchanged(self.regrow, masks)
        return masks

    def _exchanged(self, regrow: MagnitudeRegrowth, counts_of: Masks) -> Masks:
        contents = ModelContents(self._model)
        return self._choice.exchanged(contents, self.masks, counts_of, regrow.margin, self.steps)

    def _regrown(self, regrow: GradientRegrowth, masks: Masks) -> Masks | None:
        contents = ModelContents(self._model)
        targets = [target for target, _ in matching_targets(contents, masks)]
        check_gradients(targets)
        self._put_off = not all_finite(targets)
        if self._put_off:
            return None
        return self._choice.drop_and_grow(contents, masks, regrow.share(self.steps), self.steps)

    def _put(self, masks: Masks, *, states: bool = True) -> None:
        """Put masks into force, and rewind what is kept if the schedule says so."""
        before = self.masks
        self._apply(masks, states=states)
        if isinstance(self.regrow, GradientRegrowth):
            zero_what_grew(ModelContents(self._model), before, masks)
        rewind = self.schedule.rewind
        if rewind is not None and rewind < self.steps and self.schedule.ratio_at(self.steps):
            write_values(self._model, self._rewind)
            self._held.forget_states()
            self._held.write_zeros()

    def _apply(self, masks: Masks, *, states: bool = True) -> None:
        apply_masks(self._model, masks)
        self.masks = masks
        self.sparsity = masks.sparsity
        self._held.update(masks, states=states)
