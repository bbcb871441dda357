"""One object that prunes a network while it trains."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import nn, optim

from secateurs._validation import check_ratio
from secateurs.criteria import Score, check_score
from secateurs.distributed.dtensor import local_of, settle
from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import local_mask, matching_targets
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.pruning import apply_masks
from secateurs.selection._select import SelectOptions, select
from secateurs.training._hold import Averages, Hold
from secateurs.training.gradients import all_finite, check_gradients
from secateurs.training.mask_choice import MaskChoice
from secateurs.training.mask_state import beside, pruned_now, pruned_units
from secateurs.training.optimizer_state import Optimizers, check_optimizers
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth, Regrowth
from secateurs.training.schedules import Schedule
from secateurs.training.score_changes import combined, favoured, filled
from secateurs.training.straight_through import StraightThrough
from secateurs.training.zeroing import Masked, Zeroing, same_shape_mask

_REMEDY = "call pruner.replace_optimizer(optimizer) with the new one"


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
        granularity: as for `secateurs.global_prune`.
        scope: as for `secateurs.global_prune`.
        score: as for `secateurs.global_prune`. Scores by gradients read those of the last step.
        layers: as for `secateurs.global_prune`.
        include: as for `secateurs.global_prune`.
        exclude: as for `secateurs.global_prune`.
        regrow: how pruned weights come back: not at all, `MagnitudeRegrowth` (dynamic network
            surgery) or `GradientRegrowth` (RigL).
        floor: the share of its units that each layer keeps at least. With 0, a pruning that would
            empty a layer is an error.
        seed: for random scores and starts.
        averaged: averages of the model in which pruned weights become zero too; see `hold`.

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
        granularity: str = "weight",
        scope: str = "global",
        score: Score = "magnitude",
        layers: Layers | None = None,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        regrow: Regrowth | None = None,
        floor: float = 0.0,
        seed: int | None = None,
        averaged: Averages = (),
    ):
        optimizers = check_optimizers(optimizer)
        _check_schedule(schedule, regrow)
        _check_regrowth(regrow, optimizers)
        self.schedule, self.regrow, self.steps = schedule, regrow, 0
        self._model, self._averaged = model, averaged
        self._put_off = False
        options: SelectOptions = {
            "granularity": granularity,
            "scope": scope,
            "layers": layers,
            "include": include,
            "exclude": exclude,
        }
        every = select(model, 0.0, **options).draw()
        floor = check_ratio("floor", floor)
        self._choice = MaskChoice(tuple(every), check_score(score), options, floor, seed)
        self.masks = pruned_now(model, every)
        self.sparsity = self.masks.sparsity
        self._units = sum(mask.units.count for mask in self.masks.units.values())
        self._ratio = pruned_units(self.masks) / self._units
        self._rewind = self._snapshot() if schedule.rewind is not None else {}
        self._held = self._new_hold(optimizers)
        masks = self._next_masks()
        self._held.begin()
        if masks is not None:
            self._put(masks, states=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
            self._rewind = self._snapshot()
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
        _check_regrowth(self.regrow, optimizers)
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
            "masks": {name: mask.keep for name, mask in self.masks.units.items()},
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
        mine = self.state_dict()
        for name in ("schedule", "regrow"):
            if state.get(name) != mine[name]:
                raise InvalidArgumentError(
                    f"the state was saved under {name} {state.get(name)}, and this Pruner has "
                    f"{mine[name]}: make it with the same to go on"
                )
        missing = [name for name in mine if name not in state]
        saved = cast("Mapping[str, torch.Tensor]", state.get("masks", {}))
        shapes = {name: tuple(mask.keep.shape) for name, mask in self.masks.units.items()}
        if missing or {name: tuple(keep.shape) for name, keep in saved.items()} != shapes:
            raise InvalidArgumentError(
                "the state is of another model, or of other layers or granularity: it has masks of "
                f"{len(saved)} parameters that are not those of the {len(shapes)} here"
            )
        masks = Masks(
            {
                n: Mask(beside(saved[n], mask.keep), mask.units)
                for n, mask in self.masks.units.items()
            }
        )
        if "rewind" in mine:
            known = self._rewind
            self._rewind = {n: beside(t, known[n]).clone() for n, t in state["rewind"].items()}
        if isinstance(self._held, StraightThrough):
            self._held.load_dense(
                {n: beside(t, mine["dense"][n]) for n, t in state["dense"].items()}
            )
        self.steps, self._ratio, self._put_off = state["steps"], state["ratio"], state["put_off"]
        self._apply(masks)

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
                return self._pruned_to(self._ratio)
        return masks

    def _pruned_to(self, ratio: float) -> Masks:
        down = round(ratio * self._units) < round(self._ratio * self._units)
        if down and not isinstance(self.regrow, MagnitudeRegrowth):
            raise InvalidArgumentError(
                f"the schedule goes down, from {self._ratio:.4g} to {ratio:.4g} at step "
                f"{self.steps}, and pruned weights do not come back: begin at "
                f"{self._ratio:.4g} or more, or call secateurs.restore(model) before"
            )
        if isinstance(self.regrow, MagnitudeRegrowth):
            change = favoured(self.masks, self.regrow.margin)
        else:
            change = filled(self.masks, -torch.inf, where_kept=False)
        start = self.regrow.start if isinstance(self.regrow, GradientRegrowth) else "score"
        if start != "score" and not self._ratio and ratio:
            masks = self._choice.at_random(self._model, ratio, start, self.steps)
        else:
            masks = self._choice.by_score(self._model, ratio, self.steps, change)
        self._ratio = ratio
        return masks

    def _regrown(self, regrow: GradientRegrowth, masks: Masks) -> Masks | None:
        pairs = matching_targets(self._model, masks)
        check_gradients([target for target, _ in pairs])
        self._put_off = not all_finite([target for target, _ in pairs])
        if self._put_off:
            return None
        return self._choice.drop_and_grow(self._model, masks, regrow.share(self.steps), self.steps)

    def _put(self, masks: Masks, *, states: bool = True) -> None:
        """Put masks into force, and rewind what is kept if the schedule says so."""
        before = self.masks
        self._apply(masks, states=states)
        if isinstance(self.regrow, GradientRegrowth):
            self._zero_what_grew(before)
        pruned = self.schedule.ratio_at(self.steps) is not None
        if self._rewind and pruned:
            self._go_back()

    def _apply(self, masks: Masks, *, states: bool = True) -> None:
        apply_masks(self._model, masks)
        self.masks = masks
        self.sparsity = masks.sparsity
        self._held.update(masks, states=states)

    @torch.no_grad()
    def _zero_what_grew(self, before: Masks) -> None:
        """Grown weights begin at zero, also where the originals lay untrained behind the mask."""
        rows: list[Masked] = []
        for target, mask in matching_targets(self._model, self.masks):
            old = before.units[target.name]
            new = Mask(mask.keep.logical_not(), mask.units)
            stays = combined(old, new, both=False)  # kept before, or pruned now
            here = local_of(target.parameter.detach())
            rows.append(Masked(same_shape_mask(local_mask(stays, target), here), [here]))
        Zeroing()(rows)

    @torch.no_grad()
    def _snapshot(self) -> dict[str, torch.Tensor]:
        settle(self._model)
        state = self._model.state_dict().items()
        return {name: v.detach().clone() for name, v in state if isinstance(v, torch.Tensor)}

    @torch.no_grad()
    def _go_back(self) -> None:
        settle(self._model)
        now = self._model.state_dict()
        for name, value in self._rewind.items():
            now[name].copy_(value)
        self._held.forget_states()
        self._held.write_zeros()


def _check_schedule(schedule: object, regrow: object) -> None:
    if not isinstance(schedule, Schedule):
        raise InvalidArgumentError(
            "schedule must be a Schedule, such as OneShot(0.9) or Cubic(0.9, end=1000), "
            f"got {schedule!r}"
        )
    if schedule.rewind is not None and isinstance(regrow, MagnitudeRegrowth):
        raise InvalidArgumentError(
            "rewind does not go with MagnitudeRegrowth, whose pruned weights go on learning: "
            "leave one of them away"
        )


def _check_regrowth(regrow: object, optimizers: list[optim.Optimizer]) -> None:
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
