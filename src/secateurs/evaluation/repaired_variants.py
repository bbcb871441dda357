"""The repairs of a sweep: made before images are scored, each once, also over interruptions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs._progress import progress_bar
from secateurs.errors import FailureError
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.pruned_model import Variants


class RepairedVariants:
    """What repairs gave to the variants of a grid, in memory or in a folder.

    Args:
        images: the calibration images, (images, ...).
        folder: where the values are kept until all rows are finished; None for memory.
        config: what decides the values, by which those of another sweep are told apart.
    """

    def __init__(self, images: Tensor, folder: Path | None, config: Mapping[str, Any]):
        self._images = images
        self._kept = KeptRepairs(folder, config)

    def make(self, model: Variants, variants: Sequence[Variant], show: bool | None) -> None:
        """Repair all variants that are repaired in the grid, but those that are there already.

        Args:
            model: becomes each of them.
            variants: of the grid.
            show: False shows no progress.

        Raises:
            InvalidArgumentError: the model or the images cannot be repaired; see
                `secateurs.repair`.
            FailureError: NaN on the way, or the disk is full.
        """
        model.repaired = self.of
        wanted = [variant for variant in variants if variant.setting.repair]
        with progress_bar("Repairing", len(wanted), show=show, unit="networks") as bar:
            for variant in wanted:
                if self._kept.get(variant.key) is None:
                    model.prune(variant)
                    self._kept.repair(
                        model.model, variant.key, self._images, variant.setting.repair,
                        p_prune=variant.p_prune, seed=variant.seed,
                    )  # fmt: skip
                    bar.advance(1)
                else:
                    bar.skip(1)

    def of(self, key: str) -> Mapping[str, Tensor]:
        """The values of the variant of this key.

        Raises:
            FailureError: its file was removed or damaged meanwhile.
        """
        found = self._kept.get(key)
        if found is None:
            raise FailureError(
                f"{self._kept.path(key)} was removed or damaged while the sweep ran: run it again"
            )
        return found
