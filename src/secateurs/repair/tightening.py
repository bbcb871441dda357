"""Masks that prune more and more, up to given masks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secateurs.masks.mask import Masks
from secateurs.repair.layerwise import PrunedTarget
from secateurs.training.schedules import Cubic

_TIMES = 20


class Tightening:
    """The masks of each step.

    In each layer the weights that are smallest in the dense network are pruned first, by the
    schedule of Zhu and Gupta (2017). The last masks are those that the model had before.

    Args:
        weights: what is pruned in the end.
        dense: the dense network's values, by the ids of the parameters.
        steps: after how many steps all is pruned; 0 for from the start.
    """

    def __init__(self, weights: Sequence[PrunedTarget], dense: Mapping[int, Tensor], steps: int):
        self.weights, self.dense, self.steps = weights, dense, steps
        self._schedule = Cubic(1.0, end=steps, every=max(1, steps // _TIMES)) if steps else None

    @torch.no_grad()
    def begin(self) -> None:
        """Put the dense values back into what is pruned again step by step."""
        for one in self.weights if self.steps else ():
            parameter = one.target.parameter
            values = self._dense(one).to(parameter.dtype)
            parameter.copy_(torch.where(one.mask, parameter, values))

    def masks_after(self, step: int) -> Masks | None:
        """The masks after a step; None if they do not change there."""
        ratio = None if self._schedule is None else self._schedule.ratio_at(step)
        return None if ratio is None else self._masks(ratio)

    def masks_at(self, step: int) -> Masks:
        """The masks that are in force at a step."""
        ratio = 1.0
        if self._schedule is not None:
            ratio = max(r for at, r in self._schedule.prunings if at <= step)
        return self._masks(ratio)

    def _masks(self, ratio: float) -> Masks:
        kept: dict[str, Tensor] = {}
        for one in self.weights:
            mask = one.mask.contiguous()
            if ratio < 1:
                pruned = (~mask).flatten().nonzero().flatten()
                order = self._dense(one).flatten()[pruned].abs().argsort(stable=True)
                mask = torch.ones_like(mask)
                mask.view(-1)[pruned[order[: round(ratio * len(pruned))]]] = False
            kept[one.target.name] = mask
        return Masks.from_tensors(kept)

    def _dense(self, one: PrunedTarget) -> Tensor:
        return self.dense.get(id(one.target.parameter), one.target.parameter.detach())
