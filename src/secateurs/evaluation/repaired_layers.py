"""The repairs of a sensitivity run: each layer alone, made before images are scored."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs._progress import progress_bar
from secateurs.errors import FailureError
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.layer_variants import LayerVariant, LayerVariants
from secateurs.repair.repair_options import RepairOptions
from secateurs.repair.single_layers import repair_single_layers


class RepairedLayers:
    """What repairs gave to networks of which one layer is pruned, in memory or in a folder.

    Args:
        images: the calibration images, (images, ...).
        steps: of the repair, checked.
        folder: where the values are kept until all rows are finished; None for memory.
        config: what decides the values, by which those of another run are told apart.
    """

    def __init__(
        self, images: Tensor, steps: Sequence[str], folder: Path | None, config: Mapping[str, Any]
    ):
        self._images, self._steps = images, steps
        self._kept = KeptRepairs(folder, config)

    def make(self, networks: LayerVariants, show: bool | None) -> None:
        """Repair all networks but those that are there already, in one pass of the images.

        Args:
            networks: become each of them; the model is dense.
            show: False shows no progress.

        Raises:
            InvalidArgumentError: the model or the images cannot be repaired; see
                `secateurs.repair`.
            FailureError: NaN on the way, or the disk is full.
        """
        networks.repaired = self._of
        pruned = [each for each in networks.variants if not each.is_dense]
        wanted = [each for each in pruned if self._kept.get(each.key) is None]
        masks: dict[str, dict[str, Callable[[], Tensor]]] = {}
        for each in wanted:
            masks.setdefault(each.layer, {})[each.key] = _mask_of(networks, each)
        with progress_bar("Repairing", len(pruned), show=show, unit="networks") as bar:
            bar.skip(len(pruned) - len(wanted))

            def keep(key: str, values: Mapping[str, Tensor]) -> None:
                self._kept.put(key, {n: value.contiguous() for n, value in values.items()})
                bar.advance(1)

            left = repair_single_layers(
                *(networks.model, self._images, self._steps),
                {name: (networks.targets[name], of_layer) for name, of_layer in masks.items()},
                keep,
                RepairOptions(),
            )
            for key in (key for name in left for key in masks[name]):
                keep(key, {})

    def _of(self, key: str) -> Mapping[str, Tensor]:
        found = self._kept.get(key)
        if found is None:
            raise FailureError(
                f"{self._kept.path(key)} was removed or damaged while the run went on: run it again"
            )
        return found


def _mask_of(networks: LayerVariants, each: LayerVariant) -> Callable[[], Tensor]:
    """What makes the mask of a layer when it is needed: all of them would fill the memory."""
    shape = networks.targets[each.layer].parameter.shape
    return lambda: networks.masks(each)[each.layer].expand(shape)
