"""The values that repairs gave to networks, kept so that each repair is made once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from secateurs._io.durable import replace_files
from secateurs.errors import Argument, FailureError, SecateursError
from secateurs.repair.pipeline import repair
from secateurs.repair.repaired_values import repaired_values
from secateurs.results import Results

_NAME = "repaired-{}.safetensors"


class KeptRepairs:
    """The values that repairs gave to networks, by a key of each network.

    Args:
        results: the folder in which the values are kept; None for memory.
        config: what the values depend on; those of a run with another config are not used.
    """

    def __init__(self, results: Results[Any] | None, config: Mapping[str, Any]):
        self._folder = None if results is None else results.folder
        self._config = json.dumps(config, sort_keys=True, default=str)
        self._in_memory: dict[str, Mapping[str, Tensor]] = {}

    def get(self, key: str) -> Mapping[str, Tensor] | None:
        """The values of a network; None if there are none, or their file is damaged."""
        if self._folder is None:
            return self._in_memory.get(key)
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            return None

    def of(self, key: str) -> Mapping[str, Tensor]:
        """The values of a network that was repaired; an error if its file is gone or damaged."""
        found = self.get(key)
        if found is None:
            raise FailureError(
                f"{self._path(key)} was removed or damaged while the run went on: run it again"
            )
        return found

    def repair(
        self,
        model: nn.Module,
        key: str,
        images: Tensor,
        steps: Sequence[str],
        *,
        p_prune: float,
        seed: int = 0,
    ) -> None:
        """Repair a pruned network in place as `secateurs.repair`, and keep the repaired values.

        Raises:
            InvalidArgumentError: as `secateurs.repair`; the message ends with ``p_prune``.
            FailureError: likewise, or the disk is full.
        """
        try:
            repair(model, images, steps, seed=seed)
        except SecateursError as error:
            error.parts += (" (with ", Argument("p_prune", p_prune), ")")
            raise
        self.put(key, repaired_values(model))

    def put(self, key: str, values: Mapping[str, Tensor]) -> None:
        """Keep the repaired values of a network; an error if the disk is full."""
        if self._folder is None:
            self._in_memory[key] = values
        else:
            tensors = {name: value.contiguous() for name, value in values.items()}
            replace_files({self._path(key): save(tensors)})

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(f"{self._config} {key}".encode()).hexdigest()[:16]
        return (self._folder or Path()) / _NAME.format(digest)

    def clear(self, but: str | None = None) -> None:
        """Forget all values but those of one network; also those of other runs in the folder."""
        self._in_memory = {key: v for key, v in self._in_memory.items() if key == but}
        if self._folder is None:
            return
        left = None if but is None else self._path(but)
        for path in self._folder.glob(_NAME.format("*")):
            if path != left:
                with suppress(OSError):
                    path.unlink()
