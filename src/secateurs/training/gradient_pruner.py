"""One object that prunes the backward pass of a network while it trains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, Unpack

import torch
from torch import nn

from secateurs._validation import check_choice, check_count, check_ratio
from secateurs.errors import InvalidArgumentError
from secateurs.gradient_pruning.modules import (
    GradientMask,
    gradient_masks,
    gradients_kept,
    prune_gradients,
    restore_gradients,
)
from secateurs.gradient_pruning.prunable_layers import gradient_barrier
from secateurs.masks.mask import Masks
from secateurs.originals.model_lock import changing
from secateurs.parameters.model_contents import ModelContents
from secateurs.selection._select import choose, read_options
from secateurs.selection.selection_options import (
    SelectionKeywords,
    SelectionOptions,
    check_randomness,
)
from secateurs.selection.shown_keywords import shows
from secateurs.training.labelled_images import mixed
from secateurs.training.mask_state import check_state, loaded_masks, saved_masks

WEIGHT_GRADIENTS = ("dense", "masked")


@shows(SelectionOptions)
class GradientPruner:
    """Prunes the backward pass of a network while it trains; the forward pass stays as it is.

    Call `step` after each ``optimizer.step()``, or once an epoch, then ``refresh`` counts epochs.
    It goes together with `hold` and `Pruner`, which prune the forward pass: make it after them,
    and call its `step` after theirs. A model has one at a time: after a later one, or
    `secateurs.gradient_prune`, the `step` of the earlier one is an error.

    With ``granularity="filter"`` the backward pass computes the kept outputs alone, which is
    faster; see the page on gradient pruning.

    Args:
        model: the network.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive.
        p_bern: the probability with which a candidate is pruned; below 1 it needs a seed.
        refresh: after how many steps candidates are chosen by the weights of that moment, and drawn
            again; with None the first masks stay.
        weight_gradient: ``"dense"``: pruned weights learn like others; ``"masked"``: they get no
            gradient, so they do not change until a refresh keeps them.
        **options: the fields of `secateurs.SelectionOptions`. Random numbers depend on ``seed`` and
            on how many draws there were.

    Attributes:
        masks: those that are in force.
        draws: how often masks were drawn.
        steps: how many steps were taken.

    Raises:
        InvalidArgumentError: as `secateurs.gradient_prune`, or another argument is wrong.

    Example:
        >>> import torch
        >>> from secateurs.training import GradientPruner
        >>> model = torch.nn.Sequential(torch.nn.Linear(20, 10), torch.nn.Linear(10, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> pruner = GradientPruner(model, 0.5, granularity="filter", refresh=10)
        >>> for _ in range(30):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(1, 20)).square().sum().backward()
        ...     optimizer.step()
        ...     pruner.step()
        >>> pruner.draws
        4
    """

    def __init__(
        self,
        model: nn.Module,
        p_prune: float,
        p_bern: float = 1.0,
        *,
        refresh: int | None = None,
        weight_gradient: str = "dense",
        **options: Unpack[SelectionKeywords],
    ):
        self._p_prune, self._p_bern = check_ratio("p_prune", p_prune), check_ratio("p_bern", p_bern)
        self._refresh = None if refresh is None else check_count("refresh", refresh)
        check_choice("weight_gradient", weight_gradient, WEIGHT_GRADIENTS)
        self._weight_gradient = weight_gradient
        contents = ModelContents(model)
        numbers = {"p_prune": p_prune, "p_bern": p_bern, "refresh": refresh}
        self._options = read_options(
            GradientPruner, contents, options, weight_gradient=weight_gradient, **numbers
        )
        check_randomness(self._options, self._p_bern)
        self._model, self.draws = model, 0
        self._put(contents, self._drawn(contents), steps=0, draws=1)

    def __enter__(self) -> Self:
        if self._removed:
            raise InvalidArgumentError("this GradientPruner was removed: make another")
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"GradientPruner({self._settings}, steps={self.steps}, draws={self.draws})"

    def step(self) -> None:
        """Count a step, and draw again if ``refresh`` steps have passed.

        Masks that were removed from the backward pass since, as a `Pruner` does when it prunes, are
        put back. After `remove` nothing happens.

        Raises:
            InvalidArgumentError: a score is NaN, a pruned layer is gone, or the backward pass was
                pruned by other means since. The masks stay, and the step does not count.
        """
        if self._removed:
            return
        contents = ModelContents(self._model)
        in_force = self._in_force(contents)
        steps = self.steps + 1
        due = self._refresh is not None and steps % self._refresh == 0
        if due:
            self._put(contents, self._drawn(contents), steps, self.draws + 1)
        elif not in_force:
            self._put(contents, self.masks, steps, self.draws)
        self.steps = steps

    def remove(self) -> None:
        """Remove the masks from the backward pass; pruned weights and others' masks stay."""
        self._removed = True
        modules = list(self._model.modules())
        if not self._others(gradient_masks(modules)):
            with changing(self._model):
                restore_gradients(modules)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs besides the model's and the optimizer's states."""
        return {
            "settings": self._settings,
            "steps": self.steps,
            "draws": self.draws,
            "masks": saved_masks(self.masks),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InvalidArgumentError: it is of other settings or of another model.
        """
        check_state(state, self.state_dict(), "GradientPruner", ["settings"])
        contents = ModelContents(self._model)
        masks = loaded_masks(contents, self.masks, state["masks"])
        self._put(contents, masks, state["steps"], state["draws"])

    @property
    def _settings(self) -> str:
        return (
            f"p_prune={self._p_prune}, p_bern={self._p_bern}, refresh={self._refresh}, "
            f"weight_gradient={self._weight_gradient!r}, {self._options}"
        )

    def _drawn(self, contents: ModelContents) -> Masks:
        seed = self._options.seed
        source = None
        if seed is not None:
            source = torch.Generator().manual_seed(mixed(seed, self.draws, 0))
        options = replace(self._options, seed=None)
        chosen = choose(contents, self._p_prune, options, source, barrier=gradient_barrier)
        return chosen.draw(self._p_bern, generator=source)

    def _in_force(self, contents: ModelContents) -> bool:
        """Whether all masks are on the backward pass.

        Raises:
            InvalidArgumentError: a pruned layer is gone, or has masks of others.
        """
        targets = contents.targets
        gone = [name for name in self.masks if name not in targets]
        if gone:
            raise InvalidArgumentError(
                f"{gone[0]} is pruned in the backward pass, and the model has no such weight any "
                "more: call remove(), change the model, and make another GradientPruner"
            )
        now = gradient_masks(module for _, module in contents.modules)
        others = self._others(now)
        if others:
            name = next(name for name, module in contents.modules if module is others[0].module)
            raise InvalidArgumentError(
                f"the backward pass of {name or 'the model'} was pruned since by other masks than "
                "those of this GradientPruner, as by gradient_prune or another GradientPruner, and "
                "a model has one such pruning at a time: call remove() of what is no longer wanted"
            )
        self._own = now  # so that masks of a model that was moved are compared once
        return len(now) == sum(len(targets[name].places) for name in self.masks)

    def _others(self, masks: list[GradientMask]) -> list[GradientMask]:
        """Those of the masks that this object has not put on."""
        own = {(id(mask.module), mask.attribute): mask for mask in self._own}
        return [m for m in masks if not _same(m, own.get((id(m.module), m.attribute)))]

    def _put(self, contents: ModelContents, masks: Masks, steps: int, draws: int) -> None:
        """Put masks on the backward pass; weights pruned in both passes stay pruned.

        If it is cut short, as by Ctrl-C, the earlier masks stay, and what is known of them.
        """
        modules = [module for _, module in contents.modules]
        only_kept = self._weight_gradient == "masked"
        with changing(self._model), gradients_kept(modules):
            prune_gradients(contents, masks, masked_gradient=only_kept)
            own = gradient_masks(modules)
            self._own, self.masks, self.steps, self.draws = own, masks, steps, draws
            self._removed = False


def _same(mask: GradientMask, own: GradientMask | None) -> bool:
    """Whether a mask is one's own, which a model that is moved takes along as another tensor."""
    if own is None or mask.masked_gradient != own.masked_gradient:
        return False
    return mask.keep is own.keep or torch.equal(mask.keep.cpu(), own.keep.cpu())
