"""A model of which one layer alone is pruned, at several ratios."""

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateurs.evaluation.grid import Grid, Variant
from secateurs.evaluation.pruned_model import Size, Variants
from secateurs.masks.mask import Masks
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import separate_targets_in
from secateurs.pruning import restore
from secateurs.repair.repaired_values import put_repaired_values


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
        return "dense" if self.is_dense else f"{self.variant.key} {self.layer}"


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
        grids: for each layer, by the name of its parameter, its grid.
        variants: all networks, the dense one first.
        targets: the layers, by the name of their parameter.
        changed: the parameter that is pruned now; None while the network is dense.
        repaired: gives the repaired values of a network, by its key; None where none is repaired.

    Raises:
        InvalidArgumentError: the options are wrong or do not fit the model.
    """

    def __init__(self, model: nn.Module, choice: LayerChoice, options: dict[str, Any]):
        self.model = model
        self.changed: Tensor | None = None
        self.repaired: Callable[[str], Mapping[str, Tensor]] | None = None
        unpruned: dict[str, Any] = options | {"p_prune": 0.0}
        dense = Grid(**unpruned).variants[0]
        targets = separate_targets_in(ModelContents(model), choice)
        self.targets = {t.name: t for t in targets if t.parameter.numel()}
        self.grids = {name: Grid(**options, include=[glob.escape(name)]) for name in self.targets}
        self._of = {name: Variants(model, grid) for name, grid in self.grids.items()}
        self.variants = [
            LayerVariant("", dense),
            *(
                LayerVariant(name, variant)
                for name, grid in self.grids.items()
                for variant in grid.variants
                if not variant.is_dense
            ),
        ]

    def become(self, variant: LayerVariant) -> float:
        """Prune one layer, and repair it; returns the ratio of its weights that is pruned."""
        self.changed = None if variant.is_dense else self.targets[variant.layer].parameter
        if variant.is_dense:
            restore(self.model)
            return 0.0
        achieved = self._of[variant.layer].become(variant.variant)
        if self.repaired is not None:
            put_repaired_values(self.model, self.repaired(variant.key))
        return achieved

    def masks(self, variant: LayerVariant) -> Masks:
        """The mask of the layer that is pruned."""
        return self._of[variant.layer].masks(variant.variant)

    def size(self, layer: str) -> Size:
        """The numbers of elements and of units of a layer."""
        return self._of[layer].size(self.grids[layer].cells[0])

    def fingerprint(self, layer: str) -> str:
        """A hash of a layer's candidates, at all ratios."""
        return self._of[layer].fingerprint(self.grids[layer].cells[0])
