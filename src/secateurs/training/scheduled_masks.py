"""The masks of each step of a `Pruner`: what its schedule prunes, and what regrows."""

import numpy as np
import torch
from torch import nn

from secateurs._validation import check_ratio
from secateurs.distributed.dtensor import local_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import matching_targets
from secateurs.masks.mask import Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.training.mask_choice import MaskChoice, favoured, filled
from secateurs.training.mask_state import kept_units
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth, Regrowth
from secateurs.training.schedules import Schedule


class ScheduledMasks:
    """Chooses the masks of each step.

    Args:
        model: the network.
        schedule: when to prune, and to which ratio.
        regrow: how pruned weights come back; None if they do not.
        choice: chooses the units.
        masks: those in force.

    Attributes:
        ratio: the ratio of units that is pruned.
        put_off: whether the masks are to change as soon as gradients are finite.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        regrow: Regrowth | None,
        choice: MaskChoice,
        masks: Masks,
    ):
        self._model, self._schedule, self._regrow = model, schedule, regrow
        self._choice = choice
        self._units = sum(mask.units.count for mask in masks.units.values())
        kept = kept_units(masks, ModelContents(model).group.holders)
        self.ratio = (self._units - sum(kept.values())) / self._units
        self.put_off = False

    def at(self, step: int, masks: Masks) -> Masks | None:
        """The masks from a step on; None if they do not change.

        Args:
            step: its number.
            masks: those in force.

        Raises:
            InvalidArgumentError: the schedule goes down, a layer would be emptied, or a score is
                NaN or a gradient missing.
        """
        ratio, regrow = self._schedule.ratio_at(step), self._regrow
        new = None
        if ratio is not None:
            new = self._pruned_to(check_ratio("the schedule's ratio", ratio), step, masks)
        if isinstance(regrow, GradientRegrowth) and (self.put_off or regrow.due(step)):
            return self._regrown(regrow, step, new or masks) or new
        if (
            isinstance(regrow, MagnitudeRegrowth)
            and new is None
            and self.ratio
            and regrow.due(step)
            and self._choice.happens(regrow.probability(step), step)
        ):
            contents = ModelContents(self._model)
            return self._choice.exchanged(contents, masks, masks, regrow.margin, step)
        return new

    def _pruned_to(self, ratio: float, step: int, masks: Masks) -> Masks:
        if not ratio and not self.ratio and self._choice.options.criterion.needs_data:
            return masks  # before the first step there may be no data to score by
        regrow, contents = self._regrow, ModelContents(self._model)
        down = round(ratio * self._units) < round(self.ratio * self._units)
        if down and not isinstance(regrow, MagnitudeRegrowth):
            raise InvalidArgumentError(
                f"the schedule goes down, from {self.ratio:.4g} to {ratio:.4g} at step {step}, and "
                f"pruned weights do not come back: begin at {self.ratio:.4g} or more, or call "
                "secateurs.restore(model) before"
            )
        if down and isinstance(regrow, MagnitudeRegrowth):
            change = favoured(masks, regrow.margin)
        else:
            change = filled(masks, -torch.inf, where_kept=False)
        start = regrow.start if isinstance(regrow, GradientRegrowth) else "score"
        if start != "score" and not self.ratio and ratio:
            new = self._choice.at_random(contents, ratio, start, step)
        else:
            new = self._choice.by_score(contents, ratio, step, change)
        if isinstance(regrow, MagnitudeRegrowth) and not down:
            new = self._choice.exchanged(contents, masks, new, regrow.margin, step)
        self.ratio = ratio
        return new

    def _regrown(self, regrow: GradientRegrowth, step: int, masks: Masks) -> Masks | None:
        contents = ModelContents(self._model)
        targets = [target for target, _ in matching_targets(contents, masks)]
        missing = next((target.name for target in targets if target.parameter.grad is None), None)
        if missing is not None:
            raise InvalidArgumentError(
                f"{missing} has no gradient to grow by: call pruner.step() after "
                "loss.backward() and before optimizer.zero_grad(), and exclude what is not trained"
            )
        # On all ranks of a sharded model, since all change their masks together.
        finite = [torch.isfinite(local_of(t.grad.detach())).all() for t in targets]
        broken = sum(not bool(flag) for flag in finite)
        self.put_off = bool(contents.group.holders.sum(np.array([broken]))[0])
        if self.put_off:
            return None
        return self._choice.drop_and_grow(contents, masks, regrow.share(step), step)
