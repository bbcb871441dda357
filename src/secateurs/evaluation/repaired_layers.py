"""The repairs of a sensitivity run: each layer alone, made before images are scored."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from secateurs._progress import progress_bar
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.layer_variants import LayerVariant, LayerVariants
from secateurs.repair.repair_options import RepairOptions
from secateurs.repair.single_layers import repair_single_layers


def repair_layer_variants(
    networks: LayerVariants,
    images: Tensor,
    steps: Sequence[str],
    kept: KeptRepairs,
    *,
    show: bool | None,
) -> None:
    """Repair all networks but those that are kept already, in one pass of the images.

    Args:
        networks: become each of them, later; the model is dense.
        images: the calibration images, (images, ...).
        steps: of the repair, checked.
        kept: where the values are kept until all rows are finished.
        show: False shows no progress.

    Raises:
        InvalidArgumentError: the model or the images cannot be repaired; see `secateurs.repair`.
        FailureError: NaN on the way, or the disk is full.
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
