"""The repairs of a sweep: made before images are scored, each once, also over interruptions."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from secateurs._progress import progress_bar
from secateurs.errors import Argument, FailureError, InvalidArgumentError, SecateursError
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.pruned_model import Variants
from secateurs.repair.pipeline import repair
from secateurs.repair.repaired_values import repaired_values
from secateurs.results.durable import replace_files

_NAME = "repaired-{}.safetensors"


class RepairedVariants:
    """What repairs gave to the variants of a grid, in memory or in a folder.

    Args:
        images: the calibration images, (images, ...).
        folder: where the values are kept until all rows are finished; None for memory.
        config: what decides the values, by which those of another sweep are told apart.
    """

    def __init__(self, images: Tensor, folder: Path | None, config: Mapping[str, Any]):
        self._images, self._folder = images, folder
        self._config = json.dumps(config, sort_keys=True, default=str)
        self._in_memory: dict[str, dict[str, Tensor]] = {}

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
                if self._found(variant.key) is None:
                    model.prune(variant)
                    self._repair(model, variant)
                    self._keep(variant.key, repaired_values(model.model))
                    bar.advance(1)
                else:
                    bar.skip(1)

    def of(self, key: str) -> Mapping[str, Tensor]:
        """The values of the variant of this key.

        Raises:
            FailureError: its file was removed or damaged meanwhile.
        """
        found = self._found(key)
        if found is None:
            raise FailureError(
                f"{self._path(key)} was removed or damaged while the sweep ran: run it again"
            )
        return found

    def clear(self) -> None:
        """Forget all values; also those of other sweeps in the folder."""
        self._in_memory.clear()
        if self._folder is not None:
            for path in self._folder.glob(_NAME.format("*")):
                with suppress(OSError):
                    path.unlink()

    def _repair(self, model: Variants, variant: Variant) -> None:
        try:
            repair(model.model, self._images, variant.setting.repair, seed=variant.seed)
        except SecateursError as error:
            kind = InvalidArgumentError if isinstance(error, ValueError) else FailureError
            raise kind(error, " (with ", Argument("p_prune", variant.p_prune), ")") from error

    def _found(self, key: str) -> Mapping[str, Tensor] | None:
        if self._folder is None:
            return self._in_memory.get(key)
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            return None

    def _keep(self, key: str, values: dict[str, Tensor]) -> None:
        if self._folder is None:
            self._in_memory[key] = values
        else:
            tensors = {name: value.contiguous() for name, value in values.items()}
            replace_files({self._path(key): save(tensors)})

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(f"{self._config} {key}".encode()).hexdigest()[:16]
        return (self._folder or Path()) / _NAME.format(digest)
