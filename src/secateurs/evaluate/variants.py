"""Making a model into each of a grid's variants, with one byte a unit for each setting."""

from dataclasses import dataclass

import torch
from torch import nn

from secateurs.candidates import Levels, select_levels
from secateurs.evaluate.grid import Grid, Setting, Variant
from secateurs.prune import apply_masks, restore

# Random scores and draws must not come from the same numbers.
_OTHER_STREAM = 0x5EED


@dataclass(frozen=True)
class Size:
    """How much competes in a setting: elements and units."""

    targets: int
    units: int


class Variants:
    """Turns one model into any variant of a grid, in place.

    Holds the candidates of all ratios of a setting in one byte a unit, so that any variant is one
    comparison away. The model's weights and the originals that pruning keeps are the only copies.

    Args:
        model: the network, not pruned.
        grid: what will be asked for.

    Raises:
        InvalidArgumentError: the grid's options do not fit the model.
    """

    def __init__(self, model: nn.Module, grid: Grid):
        self.model = model
        self._levels: dict[Setting, Levels] = {}
        for setting in dict.fromkeys(cell.setting for cell in grid.cells):
            twin = self._twin(setting)
            self._levels[setting] = twin or select_levels(
                model,
                grid.p_prunes,
                granularity=setting.granularity,
                scope=setting.scope,
                score=setting.score,
                layers=grid.layers,
                include=grid.include,
                exclude=grid.exclude,
                seed=grid.seed if setting.score == "random" else None,
            )

    def become(self, variant: Variant) -> float:
        """Make the model this variant; returns the ratio of target weights that are pruned."""
        if variant.is_dense:
            restore(self.model)
            return 0.0
        setting = variant.setting
        seed = variant.seed + (_OTHER_STREAM if setting.score == "random" else 0)
        generator = torch.Generator().manual_seed(seed)
        candidates = self._levels[setting].at(variant.p_prune)
        masks = candidates.draw(variant.p_bern, generator=generator)
        apply_masks(self.model, masks, setting.prune_type)
        return masks.sparsity

    def size(self, setting: Setting) -> Size:
        """How many elements and units compete in a setting."""
        units = self._levels[setting].units.values()
        return Size(sum(torch.Size(u.shape).numel() for u in units), sum(u.count for u in units))

    def _twin(self, setting: Setting) -> Levels | None:
        """The levels of a setting that differs in nothing but where its masks act."""
        for other, levels in self._levels.items():
            if (other.granularity, other.scope, other.score) == (
                setting.granularity,
                setting.scope,
                setting.score,
            ):
                return levels
        return None
