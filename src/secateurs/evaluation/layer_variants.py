"""A model of which one layer alone is pruned, at several ratios."""

import glob
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateurs.evaluation.grid import Grid, Variant
from secateurs.evaluation.pruned_model import Size, Variants
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import separate_targets_in
from secateurs.pruning import restore


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
        changed: the parameter that is pruned now; None while the network is dense.

    Raises:
        InvalidArgumentError: the options are wrong or do not fit the model.
    """

    def __init__(self, model: nn.Module, choice: LayerChoice, options: dict[str, Any]):
        self.model = model
        self.changed: Tensor | None = None
        unpruned: dict[str, Any] = options | {"p_prune": 0.0}
        dense = Grid(**unpruned).variants[0]
        targets = separate_targets_in(ModelContents(model), choice)
        self._parameters = {t.name: t.parameter for t in targets if t.parameter.numel()}
        self.grids = {
            name: Grid(**options, include=[glob.escape(name)]) for name in self._parameters
        }
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
        """Prune one layer; returns the ratio of its weights that is pruned."""
        self.changed = None if variant.is_dense else self._parameters[variant.layer]
        if variant.is_dense:
            restore(self.model)
            return 0.0
        return self._of[variant.layer].become(variant.variant)

    def size(self, layer: str) -> Size:
        """The numbers of elements and of units of a layer."""
        return self._of[layer].size(self.grids[layer].cells[0])

    def fingerprint(self, layer: str) -> str:
        """A hash of a layer's candidates, at all ratios."""
        return self._of[layer].fingerprint(self.grids[layer].cells[0])
