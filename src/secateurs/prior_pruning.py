"""The pruning that a model is under: exchanged for another, saved, and brought back."""

import warnings
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from secateurs._io.text import listed
from secateurs.errors import LostTrainingWarning, SecateursError
from secateurs.gradient_pruning.modules import (
    GradientMask,
    gradient_masks,
    gradients_kept,
    install_gradient_masks,
    prune_gradients,
    restore_gradients,
)
from secateurs.masks.apply import check_weights, prune_weights
from secateurs.masks.mask import Masks
from secateurs.originals.comparison import differs
from secateurs.originals.model_lock import changing
from secateurs.originals.module_state import (
    fits,
    keep_original,
    original_of,
    originals_of,
    parameter_of,
)
from secateurs.originals.original import Original
from secateurs.originals.restore_weights import (
    check_releasable,
    compare_all_values,
    copy_bits,
    copy_original,
    find_released,
    release_weights,
    restore_weights,
)
from secateurs.parameters.model_contents import ModelContents


def put_masks(
    contents: ModelContents, masks: Masks, prune_type: str, *, stay: Collection[int] = ()
) -> None:
    """Put masks on a model instead of the pruning that it is under; after an error it keeps that.

    Args:
        contents: of the network, which is changed in place.
        masks: one for each parameter to prune.
        prune_type: ``"global"`` or ``"gradient"``.
        stay: ids of Parameters whose weights stay pruned, also without a mask.
    """
    modules = [module for _, module in contents.modules]
    with changing(contents.model):
        if prune_type == "global":
            pairs = check_weights(contents, masks)
            with gradients_kept(modules):
                restore_gradients(modules)
                prune_weights(contents, pairs, stay)
        else:
            check_releasable(contents.modules)
            prune_gradients(contents, masks)
            release_weights(find_released(contents.modules, contents.group))


@contextmanager
def masked_block(contents: ModelContents, masks: Masks, prune_type: str) -> Generator[None]:
    """`put_masks` for a ``with`` block; afterwards the model is under its earlier pruning again."""
    model = contents.model
    with changing(model):
        before = PriorPruning.of(contents)
        try:
            put_masks(contents, masks, prune_type)
            inside = PriorPruning.of(contents, values=False)
        except BaseException as error:
            if not isinstance(error, SecateursError):  # as Ctrl-C, when a part is changed
                restore_gradients(module for _, module in contents.modules)
                restore_weights(contents.modules)
                before.bring_back(contents)
            raise
    try:
        yield
    finally:
        now = ModelContents(model)  # the block may have changed it
        with changing(model):
            restore_gradients(module for _, module in now.modules)
            compare_all_values(now.modules)
            lost = inside.end() + restore_weights(now.modules) + before.bring_back(now)
        warn_of_loss("the end of the block", lost, frames=6)
        check_releasable(now.modules)


@dataclass(frozen=True)
class _PrunedWeight:
    """One weight that was pruned when its state was saved.

    Attributes:
        name: its qualified name.
        module: the module that has it.
        attribute: its name in the module.
        original: its original values.
        values: a copy of its pruned values; None if it is not to be pruned again.
        trained: whether it had been trained since it was pruned.
    """

    name: str
    module: nn.Module
    attribute: str
    original: Original
    values: torch.Tensor | None
    trained: bool


@dataclass(frozen=True)
class PriorPruning:
    """The pruning that a model was under when this was made.

    Attributes:
        weights: the weights that were pruned.
        masks: the masks of the backward pass.
    """

    weights: list[_PrunedWeight]
    masks: list[GradientMask]

    @classmethod
    def of(cls, contents: ModelContents, *, values: bool = True) -> "PriorPruning":
        """Save the pruning that a model is under.

        Args:
            contents: of the network.
            values: whether to copy the pruned values, which `bring_back` needs.
        """
        weights = [
            _PrunedWeight(
                name,
                module,
                attribute,
                original.moved(original.values, original.parameter),
                original.parameter.detach().clone() if values else None,
                values and original.trained,
            )
            for name, module, attribute, original in originals_of(contents.modules)
            if original_of(module, attribute) is original
        ]
        return cls(weights, gradient_masks(module for _, module in contents.modules))

    def end(self) -> list[str]:
        """Put the original values back into weights that are still pruned.

        Returns:
            The names of the weights that had been trained since, whose training is lost.
        """
        lost: dict[int, str] = {}
        for weight in self.weights:
            kept = original_of(weight.module, weight.attribute)
            if kept is None:
                continue
            if copy_original(weight.module, weight.attribute, weight.original.values):
                lost.setdefault(id(kept.parameter), weight.name)
        return list(lost.values())

    def bring_back(self, contents: ModelContents) -> list[str]:
        """Prune a model that is not pruned as it was before.

        A Parameter that was replaced or resized since is left as it is.

        Args:
            contents: what the model contains now.

        Returns:
            The names of the weights that had been trained since, whose training is lost.
        """
        lost: dict[int, str] = {}
        for weight in self.weights:
            parameter, original = weight.original.parameter, weight.original.values
            now = parameter_of(weight.module, weight.attribute)
            if weight.values is None or not weight.original.belongs_to(now):
                continue
            dense = weight.values if weight.trained else original
            if differs(parameter, dense) and differs(parameter, weight.values):
                lost.setdefault(id(parameter), weight.name)
            original = original.to(parameter.device, parameter.dtype)
            moved = weight.original.moved(original, parameter)
            keep_original(weight.module, weight.attribute, moved)  # first: an interrupt loses none
            copy_bits(parameter, weight.values)
        fitting = [m for m in self.masks if fits(m.keep, getattr(m.module, m.attribute, None))]
        install_gradient_masks([module for _, module in contents.modules], fitting)
        return list(lost.values())


def warn_of_loss(what: str, names: list[str], *, frames: int) -> None:
    """Warn that training of these weights is lost, if any; ``frames`` is the ``stacklevel``."""
    if not names:
        return
    warnings.warn(
        f"{what} puts back the values that {listed(names)} had before pruning, so what training or "
        "loading changed since is lost: to keep it, call make_permanent(model) first",
        LostTrainingWarning,
        stacklevel=frames,
    )
