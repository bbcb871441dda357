"""The repairs of a sweep: made before images are scored, each once, also over interruptions."""

from collections.abc import Sequence

from torch import Tensor

from secateurs._progress import progress_bar
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.pruned_model import Variants


def repair_variants(
    model: Variants,
    variants: Sequence[Variant],
    images: Tensor,
    kept: KeptRepairs,
    *,
    show: bool | None,
) -> None:
    """Repair all variants that are repaired in the grid, but those that are kept already.

    Args:
        model: becomes each of them, then and later.
        variants: of the grid.
        images: the calibration images, (images, ...).
        kept: where the values are kept until all rows are finished.
        show: False shows no progress.

    Raises:
        InvalidArgumentError: the model or the images cannot be repaired; see `secateurs.repair`.
        FailureError: NaN on the way, or the disk is full.
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
