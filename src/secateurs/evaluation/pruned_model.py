"""Making a model into each of a grid's variants, with one byte a unit for each setting."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from secateurs._validation import make_generator
from secateurs.evaluation.grid import Cell, Grid, Variant
from secateurs.parameters.model_contents import ModelContents
from secateurs.provenance import tensors_sha256
from secateurs.pruning import apply_masks, restore
from secateurs.selection._select import choose_levels
from secateurs.selection.candidates import Levels
from secateurs.selection.selection_options import SelectionOptions


@dataclass(frozen=True)
class Size:
    """How much competes in a setting: elements and units."""

    targets: int
    units: int


@dataclass(frozen=True)
class _Choice:
    """The candidates of all ratios; for random scores, the generator's state after drawing them."""

    levels: Levels
    state: torch.Tensor | None


class Variants:
    """Turns one model into any variant of a grid, in place.

    Holds the candidates of all ratios of a setting in one byte a unit, so that any variant is one
    comparison away. Settings that differ only in where masks act share it; each draw of random
    scores needs its own. The model's weights and the originals that pruning keeps are the only
    copies, with the mask of the moment.

    Args:
        model: the network, not pruned.
        grid: what will be asked for.

    Raises:
        InvalidArgumentError: the grid's options do not fit the model.
    """

    def __init__(self, model: nn.Module, grid: Grid):
        self.model = model
        self._choices: dict[Variant, _Choice] = {}
        self._achieved: dict[str, float] = {}
        made: dict[SelectionOptions, _Choice] = {}
        for variant in (variant for cell in grid.cells for variant in cell.variants):
            options = _options(variant)
            if options not in made:
                # Of all choices one warning is enough.
                made[options] = _choose(model, grid, options, warn=not made)
            self._choices[variant] = made[options]

    def become(self, variant: Variant) -> float:
        """Make the model this variant; returns the ratio of target weights that are pruned."""
        if variant.is_dense:
            restore(self.model)
            return 0.0
        choice = self._choices[variant]
        # Whatever the batch, the same draw; and the one that `global_prune` makes with this seed.
        generator = torch.Generator().manual_seed(variant.seed)
        if choice.state is not None:
            generator.set_state(choice.state)
        masks = choice.levels.at(variant.p_prune).draw(variant.p_bern, generator=generator)
        apply_masks(self.model, masks, variant.setting.prune_type)
        if variant.key not in self._achieved:  # counted once: a GPU waits for each count
            self._achieved[variant.key] = masks.sparsity
        return self._achieved[variant.key]

    def size(self, cell: Cell) -> Size:
        """How many elements and units compete in a cell."""
        units = self._choices[cell.variants[0]].levels.units.values()
        return Size(sum(torch.Size(u.shape).numel() for u in units), sum(u.count for u in units))

    def fingerprint(self, cell: Cell) -> str:
        """A hash of the candidates of a cell's setting, at all ratios."""
        return tensors_sha256(self._choices[cell.variants[0]].levels.level)


def _options(variant: Variant) -> SelectionOptions:
    """What the candidates depend on: where masks act is no part of it."""
    setting = variant.setting
    seed = variant.seed if setting.criterion.is_random else None
    return replace(setting, prune_type="global", seed=seed)


def _choose(model: nn.Module, grid: Grid, options: SelectionOptions, *, warn: bool) -> _Choice:
    generator = make_generator(None, options.seed)
    levels = choose_levels(
        ModelContents(model),
        grid.p_prunes,
        replace(options, seed=None),
        generator,
        warn=warn,
        barrier=grid.barrier,
    )
    return _Choice(levels, None if generator is None else generator.get_state())
