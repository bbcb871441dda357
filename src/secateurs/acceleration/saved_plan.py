"""A plan on disk: what was chosen for each layer, and the machine that it was measured on."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from secateurs._io.durable import replace_files
from secateurs._io.json_objects import BrokenJSONError, as_list, as_object, read_object_file
from secateurs._io.text import printable
from secateurs._validation import check_path
from secateurs.acceleration.layer_timing import DENSE, LayerTiming
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.provenance import device_name

_FORMAT = 1
_LIKE = 0.01  # of the weights of a layer: so many more or fewer zeros are the same pruning


@dataclass(frozen=True)
class Plan:
    """What was chosen, and for what.

    Attributes:
        machine: see `machine`.
        layers: the choice of each layer and shape.
        examples: the shapes of the inputs of each example.
        seconds: of the dense and of the accelerated model for each example.
    """

    machine: Mapping[str, str]
    layers: tuple[LayerTiming, ...]
    examples: tuple[str, ...]
    seconds: tuple[tuple[float, float], ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Raises:
            FailureError: the file cannot be written.
        """
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        replace_files({check_path("path", path): f"{text}\n".encode()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Plan":
        """Read what `save` wrote.

        Raises:
            FailureError: the file cannot be read, or is no plan.
        """
        path = check_path("plan", path)
        values = read_object_file(path, "as a plan of accelerate")
        try:
            if values["format"] != _FORMAT:
                raise BrokenJSONError(f"it has format {values['format']!r}")
            plan = cls(
                {str(name): str(value) for name, value in as_object(values["machine"]).items()},
                tuple(_timing(as_object(layer)) for layer in as_list(values["layers"])),
                tuple(map(str, as_list(values["examples"]))),
                tuple((float(d), float(f)) for d, f in as_list(values["seconds"])),
            )
            if len(plan.seconds) != len(plan.examples):
                raise BrokenJSONError("it has other examples than seconds")
            return plan
        except (BrokenJSONError, KeyError, TypeError, ValueError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise FailureError(
                f"{printable(path)} is no plan of this version of accelerate ({why}): "
                "leave plan out, and save the new one"
            ) from error

    def check(
        self, here: Mapping[str, str], examples: Sequence[str], layers: Sequence[LayerTiming]
    ) -> None:
        """Refuse a plan that was measured for something else.

        Args:
            here: the `machine` now.
            examples: the shapes of the examples now.
            layers: the layers and shapes now.

        Raises:
            InvalidArgumentError: the machine, the shapes or the zeros are not those of the plan.
        """
        for name in dict.fromkeys((*self.machine, *here)):
            there, now = self.machine.get(name), here.get(name)
            if there != now:
                _refuse(f"{name} {there}", str(now))
        if self.examples != tuple(examples):
            _refuse(f"inputs of {' and '.join(self.examples)}", " and ".join(examples))
        now = {(one.name, one.shape): one for one in layers}
        for one in self.layers:
            same = now.get((one.name, one.shape))
            if same is None:
                _refuse(f"a layer {one.name} with inputs of {one.shape}", "the model has none")
            elif abs(same.zeros - one.zeros) > _LIKE:
                _refuse(f"{one.zeros:.1%} zeros in {one.name}", f"{same.zeros:.1%}")


def machine(device: torch.device, threads: int) -> dict[str, str]:
    """What the speed of a layer depends on, besides the layer and its input."""
    return {
        "processor": _processor(),
        "device": device_name(device),
        "threads": str(threads),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _timing(values: dict[str, Any]) -> LayerTiming:
    seconds = {str(name): float(s) for name, s in as_object(values["seconds"]).items()}
    chosen = str(values["chosen"])
    if chosen != DENSE and not {DENSE, chosen} <= seconds.keys():
        raise BrokenJSONError(f"it has no seconds of {chosen}")
    return LayerTiming(
        str(values["name"]),
        str(values["layer"]),
        tuple(int(size) for size in as_list(values["shape"])),
        float(values["zeros"]),
        int(values["kept"]),
        int(values["calls"]),
        seconds,
        chosen,
    )


def _refuse(there: str, now: str) -> NoReturn:
    raise InvalidArgumentError(
        f"the plan was made for {there}, and now it is {now}: leave plan out to measure again, "
        "and save the new one"
    )
