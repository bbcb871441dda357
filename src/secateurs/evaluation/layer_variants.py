"""A model of which one layer alone is pruned, at several ratios."""

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from secateurs._progress import progress_bar
from secateurs.evaluation.evaluation_loop import DENSE
from secateurs.evaluation.grid import Grid, Variant
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.pruned_model import Size, Variants
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import separate_targets_in
from secateurs.pruning import restore
from secateurs.repair.repair_options import RepairOptions
from secateurs.repair.repaired_values import put_repaired_values
from secateurs.repair.single_layers import repair_single_layers


@dataclass(frozen=True)
class LayerVariant:
    """A network to score: one layer pruned alone, or with ``layer=""`` the dense network."""

    layer: str
    variant: Variant

    @property
    def is_dense(self) -> bool:
        """Whether this is the original network."""
        return self.variant.is_dense

    @property
    def key(self) -> str:
        """The name of this network in a progress file."""
        return DENSE if self.is_dense else f"{self.variant.key} {self.layer}"


class LayerVariants:
    """Turns a model into each network of which one layer is pruned, in place.

    A layer is pruned as `secateurs.global_prune` does with ``include`` naming it alone. Memory
    holds one byte for each unit of the model beside what a sweep needs.

    Args:
        model: the network, not pruned.
        choice: which layers.
        options: the arguments of `Grid` for each layer, without ``layers``, ``include``,
            ``exclude``.

    Attributes:
        model: the network.
        variants: all networks by their keys, the dense one first.
        pruned: all networks but the dense one, in the order of the model.
        changed: the parameter that is pruned now; None while the network is dense.

    Raises:
        InvalidArgumentError: the options are wrong or do not fit the model.
    """

    def __init__(self, model: nn.Module, choice: LayerChoice, options: dict[str, Any]):
        self.model = model
        self.changed: Tensor | None = None
        self._repairs: KeptRepairs | None = None
        unpruned: dict[str, Any] = options | {"p_prune": 0.0}
        targets = separate_targets_in(ModelContents(model), choice)
        self._targets = {t.name: t for t in targets if t.parameter.numel()}
        self._of = {
            name: Variants(model, Grid(**options, include=[glob.escape(name)]))
            for name in self._targets
        }
        self.pruned = [
            LayerVariant(name, variant)
            for name, of_layer in self._of.items()
            for variant in of_layer.grid.variants
            if not variant.is_dense
        ]
        dense = LayerVariant("", Grid(**unpruned).variants[0])
        self.variants = {each.key: each for each in (dense, *self.pruned)}

    def become(self, variant: LayerVariant) -> float:
        """Prune one layer, and repair it; returns the ratio of its weights that is pruned."""
        self.changed = None if variant.is_dense else self._targets[variant.layer].parameter
        if variant.is_dense:
            restore(self.model)
            return 0.0
        achieved = self._of[variant.layer].become(variant.variant)
        if self._repairs is not None:
            put_repaired_values(self.model, self._repairs.of(variant.key))
        return achieved

    def repair(
        self, images: Tensor, steps: Sequence[str], kept: KeptRepairs, *, show: bool | None
    ) -> None:
        """Repair the layer that each network prunes, all in one pass of the images.

        Networks whose values are kept already are left out. From now on `become` puts these values
        into the model, which must be dense now. ``show`` is False for no progress.

        Raises:
            SecateursError: as `secateurs.repair.single_layers.repair_single_layers`.
        """
        self._repairs = kept
        wanted = [each for each in self.pruned if kept.get(each.key) is None]
        masks: dict[str, dict[str, Callable[[], Tensor]]] = {}
        for each in wanted:
            # Made when it is needed: all of them would fill the memory.
            masks.setdefault(each.layer, {})[each.key] = partial(self._mask, each)
        with progress_bar("Repairing", len(self.pruned), show=show, unit="networks") as bar:
            bar.skip(len(self.pruned) - len(wanted))

            def keep(key: str, values: Mapping[str, Tensor]) -> None:
                kept.put(key, values)
                bar.advance(1)

            targets = {name: (self._targets[name], of_layer) for name, of_layer in masks.items()}
            left = repair_single_layers(self.model, images, steps, targets, keep, RepairOptions())
            for key in (key for name in left for key in masks[name]):
                keep(key, {})

    def size(self, layer: str) -> Size:
        """The numbers of elements and of units of a layer."""
        variants = self._of[layer]
        return variants.size(variants.grid.cells[0])

    def fingerprints(self) -> dict[str, str]:
        """For each layer, by name, a hash of its candidates, at all ratios."""
        return {name: each.fingerprint(each.grid.cells[0]) for name, each in self._of.items()}

    def _mask(self, variant: LayerVariant) -> Tensor:
        """The mask of the layer that a network prunes, in the shape of its weight."""
        mask = self._of[variant.layer].masks(variant.variant)[variant.layer]
        return mask.expand(self._targets[variant.layer].parameter.shape)
