"""The repairs of a sweep and of a sensitivity run: made before images are scored, each once."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from secateurs._progress import progress_bar
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.layer_variants import LayerVariant, LayerVariants
from secateurs.evaluation.pruned_model import Variants
from secateurs.repair.repair_options import RepairOptions
from secateurs.repair.single_layers import repair_single_layers


def repair_variants(
    model: Variants,
    variants: Sequence[Variant],
    images: Tensor,
    kept: KeptRepairs,
    *,
    show: bool | None,
) -> None:
    """Repair all variants that the grid repairs, but those that are kept already.

    Args:
        model: becomes each of them, here and later.
        variants: of the grid.
        images: the calibration images, (images, ...).
        kept: where the values are kept until all rows are finished.
        show: False shows no progress.

    Raises:
        InvalidArgumentError: the model or the images cannot be repaired; see `secateurs.repair`.
        FailureError: a value becomes NaN or infinite, or the disk is full.
    """
    model.repaired = kept.of
    wanted = [variant for variant in variants if variant.setting.repair]
    with progress_bar("Repairing", len(wanted), show=show, unit="networks") as bar:
        for variant in wanted:
            if kept.get(variant.key) is None:
                model.prune(variant)
                kept.repair(
                    model.model, variant.key, images, variant.setting.repair,
                    p_prune=variant.p_prune, seed=variant.seed,
                )  # fmt: skip
                bar.advance(1)
            else:
                bar.skip(1)


def repair_layer_variants(
    networks: LayerVariants,
    images: Tensor,
    steps: Sequence[str],
    kept: KeptRepairs,
    *,
    show: bool | None,
) -> None:
    """Repair the layer that each network prunes, all in one pass of the images.

    Args:
        networks: become each of them, later; the model is dense.
        images: as for `repair_variants`.
        steps: of the repair, checked.
        kept: as for `repair_variants`.
        show: False shows no progress.

    Raises:
        SecateursError: as `repair_variants`.
    """
    networks.repaired = kept.of
    pruned = [each for each in networks.variants if not each.is_dense]
    wanted = [each for each in pruned if kept.get(each.key) is None]
    masks: dict[str, dict[str, Callable[[], Tensor]]] = {}
    for each in wanted:
        masks.setdefault(each.layer, {})[each.key] = _mask_of(networks, each)
    with progress_bar("Repairing", len(pruned), show=show, unit="networks") as bar:
        bar.skip(len(pruned) - len(wanted))

        def keep(key: str, values: Mapping[str, Tensor]) -> None:
            kept.put(key, values)
            bar.advance(1)

        left = repair_single_layers(
            *(networks.model, images, steps),
            {name: (networks.targets[name], of_layer) for name, of_layer in masks.items()},
            keep,
            RepairOptions(),
        )
        for key in (key for name in left for key in masks[name]):
            keep(key, {})


def _mask_of(networks: LayerVariants, each: LayerVariant) -> Callable[[], Tensor]:
    """What makes the mask of a layer when it is needed: all of them would fill the memory."""
    shape = networks.targets[each.layer].parameter.shape
    return lambda: networks.masks(each)[each.layer].expand(shape)
