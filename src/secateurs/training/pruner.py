"""One object that prunes a network while it trains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, Unpack

from torch import nn, optim

from secateurs._validation import check_ratio
from secateurs.errors import InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.selection._select import choose, read_options
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.training._hold import Averages, Hold
from secateurs.training.held_weights import put_beside_others
from secateurs.training.mask_choice import MaskChoice
from secateurs.training.mask_state import (
    check_state,
    copied_values,
    loaded_masks,
    moved_like,
    pruned_now,
    saved_masks,
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
from secateurs.training.schedules import Schedule
from secateurs.training.step_hooks import active_holds
from secateurs.training.straight_through import StraightThrough

_REMEDY = "call pruner.replace_optimizer(optimizer) with the new one"


@shows(SelectionOptions)
class Pruner:
    """Prunes a network further and further while it trains, and holds its zeros meanwhile.

    Make it after the model was moved, wrapped and given an optimizer, and call `step` after each
    ``optimizer.step()``, before ``zero_grad()``; or once an epoch, then the schedule counts epochs.
    Between its steps `hold` keeps pruned weights at zero.

    Without regrowth, pruned weights stay pruned. Each pruning copies the weights to ``weight_orig``
    before, so `secateurs.restore` brings back what was last learned of all of them; see the page
    on training. Step 0 of a schedule is taken when the object is made; the optimizer's state does
    not change before its first step.

    Args:
        model: the network.
        optimizer: its optimizer, or a list of all its optimizers.
        schedule: when to prune and to which ratio of units: `OneShot`, `Iterative`, `Cubic`,
            `Constant`, or a `Schedule` of your own.
        regrow: how pruned weights come back: not at all, `MagnitudeRegrowth` (dynamic network
            surgery) or `GradientRegrowth` (RigL).
        keep_at_least: the least share of its units that a layer keeps. With 0, a pruning that would
            leave nothing of a layer is an error.
        averaged: averages of the model in which pruned weights become zero too; see `hold`.
        **options: the fields of `secateurs.SelectionOptions`. Criteria that need gradients read
            those of the last step.

    Attributes:
        schedule: the schedule.
        regrow: how pruned weights come back.
        steps: how many steps were taken.
        masks: those in force, one for every parameter that competes.
        sparsity: the ratio of the weights of these parameters that is pruned.

    Raises:
        InvalidArgumentError: as `hold` and `secateurs.global_prune`, or the schedule goes down, or
            nothing would be left of a layer.

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
        keep_at_least: float = 0.0,
        averaged: Averages = (),
        **options: Unpack[SelectionKeywords],
    ):
        optimizers = check_optimizers(optimizer)
        check_schedule(schedule, regrow)
        check_regrowth(regrow, optimizers)
        self.schedule, self.regrow, self.steps = schedule, regrow, 0
        self._model, self._averaged = model, averaged
        keep_at_least = check_ratio("keep_at_least", keep_at_least)
        contents = ModelContents(model)
        given = read_options(
            Pruner, contents, options, schedule=schedule, regrow=regrow, keep_at_least=keep_at_least
        )
        check_neighbours(given, schedule, regrow, keep_at_least)
        every = choose(contents, 0.0, replace(given, score="magnitude", seed=None)).draw()
        self.masks = pruned_now(contents, every)
        check_pruned_before(contents, self.masks, given)
        self.sparsity = self.masks.sparsity
        self._choice = MaskChoice(model, schedule, regrow, given, keep_at_least, self.masks)
        self._rewind = copied_values(model) if schedule.rewind is not None else {}
        self._held = self._new_hold(optimizers, averaged)
        masks = self._choice.at(0, self.masks)
        self._held.begin()
        if masks is not None:
            self._put(masks, states=False)

    def __enter__(self) -> Self:
        if not self._held.is_active:
            raise InvalidArgumentError(
                "this Pruner has ended: call pruner.replace_optimizer(optimizer) to go on"
            )
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

        After `remove`, or when another call of `hold` or `Pruner` holds the weights, nothing
        happens. All ranks of a distributed model must call together.

        Raises:
            InvalidArgumentError: a score is NaN, nothing would be left of a layer, or there are no
                gradients to grow by. The model is unchanged, and the step does not count.
        """
        if not self._held.is_active:
            return
        choice = self._choice
        before = self.steps, choice.ratio, choice.put_off
        try:
            masks = choice.at(self.steps + 1, self.masks)
            self.steps += 1
            if self.steps == self.schedule.rewind:
                self._rewind = copied_values(self._model)
            if masks is not None:
                self._put(masks)
        except BaseException:
            self.steps, choice.ratio, choice.put_off = before
            raise

    def remove(self) -> None:
        """Stop pruning and holding; the weights are still pruned, ``weight_orig`` is still there.

        `replace_optimizer` begins again.
        """
        self._held.remove()

    def replace_optimizer(self, optimizer: Optimizers, *, averaged: Averages | None = None) -> None:
        """Go on with another optimizer, or with several.

        Args:
            optimizer: the new one, or a list of all.
            averaged: averages of the model instead of those of before.

        Raises:
            InvalidArgumentError: it does not hold the masked parameters.
        """
        optimizers = check_optimizers(optimizer)
        check_regrowth(self.regrow, optimizers)
        averaged = self._averaged if averaged is None else averaged
        held = self._new_hold(optimizers, averaged)
        self._averaged = averaged
        self._held.remove()
        self._held = held
        put_beside_others(self._model, self.masks)
        held.begin()
        held.write_zeros()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs besides the states of the model and the optimizer.

        It consists of tensors, numbers, texts and dicts. So it can be saved by ``torch.save`` and
        loaded with ``weights_only=True``, or saved by ``torch.distributed.checkpoint`` and loaded
        on another number of ranks.
        """
        state: dict[str, Any] = {
            "schedule": repr(self.schedule),
            "regrow": repr(self.regrow),
            "steps": self.steps,
            "ratio": self._choice.ratio,
            "put_off": self._choice.put_off,
            "masks": saved_masks(self.masks),
        }
        if self.schedule.rewind is not None:
            state["rewind"] = dict(self._rewind)
        if isinstance(self._held, StraightThrough):
            state["dense"] = self._held.dense()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        The states of the model and the optimizer may be loaded before or afterwards.

        Raises:
            InvalidArgumentError: it is of another schedule or another model.
        """
        check_state(state, self.state_dict(), "Pruner", ["schedule", "regrow"])
        check_ratio("ratio", state["ratio"])
        if self.schedule.rewind is not None:
            known = self._rewind
            self._rewind = {n: moved_like(t, known[n]).clone() for n, t in state["rewind"].items()}
        if isinstance(self._held, StraightThrough):
            self._held.load_dense(state["dense"])
        self.steps = state["steps"]
        self._choice.ratio, self._choice.put_off = state["ratio"], state["put_off"]
        self._apply(loaded_masks(ModelContents(self._model), self.masks, state["masks"]))

    def _new_hold(self, optimizers: list[optim.Optimizer], averaged: Averages) -> Hold:
        kind = StraightThrough if isinstance(self.regrow, MagnitudeRegrowth) else Hold
        return kind(
            self._model,
            optimizers,
            self.masks,
            averaged=averaged,
            dense_gradients=isinstance(self.regrow, GradientRegrowth),
            remedy=_REMEDY,
        )

    def _put(self, masks: Masks, *, states: bool = True) -> None:
        """Prune by masks and hold them, and rewind the kept weights if the schedule says so."""
        before = self.masks
        self._apply(masks, states=states)
        if isinstance(self.regrow, GradientRegrowth):
            zero_what_grew(ModelContents(self._model), before, masks)
        rewind = self.schedule.rewind
        if rewind is not None and rewind < self.steps and self.schedule.ratio_at(self.steps):
            write_values(self._model, self._rewind)
            self._held.forget_states()
            for held in active_holds(self._model.modules()):
                held.write_zeros()

    def _apply(self, masks: Masks, *, states: bool = True) -> None:
        put_beside_others(self._model, masks)
        self.masks = masks
        self.sparsity = masks.sparsity
        self._held.update(masks, states=states)
