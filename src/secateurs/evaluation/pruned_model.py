"""Turn a model into each of a grid's variants, with one byte a unit for each setting."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._progress import progress_bar
from secateurs._validation import make_generator
from secateurs.evaluation.grid import P_PRUNE, Cell, Grid, Setting, Variant
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.masks._sparsity import Sparsity
from secateurs.masks.mask import Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.provenance import tensors_sha256
from secateurs.pruning import apply_masks, restore
from secateurs.repair.allocation import allocate
from secateurs.repair.repaired_values import put_repaired_values
from secateurs.selection._select import choose_levels
from secateurs.selection.candidates import Candidates, Levels
from secateurs.selection.layer_counts import ratios_alone


@dataclass(frozen=True)
class Size:
    """The numbers of elements and of units that compete in a setting."""

    targets: int
    units: int


@dataclass(frozen=True)
class _Choice:
    """The candidates of all ratios; for random scores also the generator's state after them."""

    levels: Levels
    state: Tensor | None


class Variants:
    """Turns one model into any variant of a grid, in place.

    Holds the candidates of all ratios of a setting in one byte a unit, so that one comparison gives
    the candidates of any ratio. Settings that differ only in their prune type share these bytes;
    each draw of random scores needs its own. Beside them, memory holds the model's weights, the
    originals that pruning keeps, and one mask.

    Args:
        model: the network, not pruned.
        grid: the variants.

    Attributes:
        model: the network.
        grid: the variants.

    Raises:
        InvalidArgumentError: the grid's options do not fit the model.
    """

    def __init__(self, model: nn.Module, grid: Grid):
        self.model, self.grid = model, grid
        self._choices: dict[Variant, _Choice] = {}
        self._counts: dict[str, Sparsity] = {}
        self._repairs: KeptRepairs | None = None
        made: dict[Setting, _Choice] = {}
        for variant in (variant for cell in grid.cells for variant in cell.variants):
            options = _options(variant)
            if options not in made:
                # The first choice warns for all.
                made[options] = _choose(model, grid, options, warn=not made)
            self._choices[variant] = made[options]

    def become(self, variant: Variant) -> float:
        """Make the model this variant; returns the ratio of its weights that is pruned."""
        achieved = self._prune(variant)
        if variant.setting.repair and self._repairs is not None:
            put_repaired_values(self.model, self._repairs.of(variant.key))
        return achieved

    def repair(self, images: Tensor, kept: KeptRepairs, *, show: bool | None) -> None:
        """Repair all variants that the grid repairs, but those whose values are kept already.

        From now on `become` puts these values into the model. ``show`` is False for no progress.

        Raises:
            SecateursError: as `KeptRepairs.repair`.
        """
        self._repairs = kept
        wanted = [variant for variant in self._choices if variant.setting.repair]
        with progress_bar("Repairing", len(wanted), show=show, unit="networks") as bar:
            for variant in wanted:
                if kept.get(variant.key) is not None:
                    bar.skip(1)
                    continue
                self._prune(variant)
                steps, p_prune, seed = variant.setting.repair, variant.p_prune, variant.seed
                kept.repair(self.model, variant.key, images, steps, p_prune=p_prune, seed=seed)
                bar.advance(1)

    def _prune(self, variant: Variant) -> float:
        if variant.is_dense:
            restore(self.model)
            return 0.0
        masks = self.masks(variant)
        apply_masks(self.model, masks, variant.setting.prune_type)
        if variant.key not in self._counts:  # counted once: a GPU waits for each count
            self._counts[variant.key] = masks.table
        return self._counts[variant.key].ratio

    def masks(self, variant: Variant) -> Masks:
        """The masks of a variant that is not dense: those of `global_prune` with its seed."""
        choice = self._choices[variant]
        generator = torch.Generator().manual_seed(variant.seed)
        if choice.state is not None:
            generator.set_state(choice.state)
        return choice.levels.at(variant.p_prune).draw(variant.p_bern, generator=generator)

    def layers(self, cell: Cell) -> Sparsity | None:
        """What the first draw of a cell pruned in each layer; None if no image was scored with it.

        An earlier run may have scored them all, and the dense network prunes nothing.
        """
        return self._counts.get(cell.variants[0].key)

    def size(self, cell: Cell) -> Size:
        """The numbers of elements and of units that compete in a cell."""
        units = self._choices[cell.variants[0]].levels.units.values()
        return Size(sum(torch.Size(u.shape).numel() for u in units), sum(u.count for u in units))

    def fingerprint(self, cell: Cell) -> str:
        """A hash of the candidates of a cell's setting, at all ratios."""
        return tensors_sha256(self._choices[cell.variants[0]].levels.level)


def _options(variant: Variant) -> Setting:
    """What the candidates depend on, which is all but the prune type and the repair."""
    setting = variant.setting
    seed = variant.seed if setting.criterion.is_random else None
    return replace(setting, prune_type="global", repair=(), seed=seed)


def with_overall_ratio(model: nn.Module, grid: Grid) -> Grid:
    """The grid, with the overall ratio in ``p_prune`` if it has a ratio for each parameter.

    Raises:
        InvalidArgumentError: it has both, or the ratios do not fit the model.
    """
    if grid.ratios is None:
        return grid
    if grid.p_prune != P_PRUNE or grid.scope != ("global",):
        raise ratios_alone()
    setting = replace(grid.cells[0].setting, score="magnitude")  # the count is that of any score
    found = _allocated(model, setting, None)
    return replace(grid, p_prune=(0.0, found.count / found.total))


def _allocated(model: nn.Module, setting: Setting, generator: torch.Generator | None) -> Candidates:
    names = ("granularity", "score", "layers", "include", "exclude")
    options: dict[str, Any] = {name: getattr(setting, name) for name in names}
    return allocate(model, None, dict(setting.ratios or ()), generator=generator, **options)


def _choose(model: nn.Module, grid: Grid, options: Setting, *, warn: bool) -> _Choice:
    generator = make_generator(None, options.seed)
    if options.ratios is not None:
        chosen, last = _allocated(model, options, generator), len(grid.p_prunes) - 1
        # A candidate is one at the last ratio, all others are candidates at none.
        level = {n: (~mask).to(torch.uint8) + last for n, mask in chosen.local.items()}
        levels = Levels(tuple(grid.p_prunes), chosen.units, level, chosen.group)
    else:
        levels = choose_levels(
            ModelContents(model),
            grid.ratios_of(options),
            replace(options, seed=None),
            generator,
            warn=warn,
            barrier=grid.barrier,
        )
    return _Choice(levels, None if generator is None else generator.get_state())
