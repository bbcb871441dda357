"""Files of masks: safetensors with a bool for each unit, and the units' shapes in the metadata."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from secateurs._io.durable import replace_files
from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.text import quoted
from secateurs.masks.granularity import Units

_FORMAT = "secateurs-masks-1"
_MOST_DIMENSIONS, _MOST_ELEMENTS = 64, 1 << 60


def write_mask_file(
    path: str | Path, keep: Mapping[str, torch.Tensor], units: Mapping[str, Units]
) -> None:
    """Write a file of masks.

    Args:
        path: the file.
        keep: for each parameter a bool for each of its units, True if it is kept.
        units: how the elements of each parameter fall into units.

    Raises:
        FailureError: the file cannot be written; an old one is intact.
    """
    shapes = {name: one.described for name, one in units.items()}
    metadata = {"format": _FORMAT, "units": json.dumps(shapes)}
    tensors = {  # cloned, since safetensors refuses tensors that share memory
        name: mask.cpu().clone(memory_format=torch.contiguous_format) for name, mask in keep.items()
    }
    replace_files({Path(path): save(tensors, metadata)})


def read_mask_file(path: str | Path) -> dict[str, tuple[torch.Tensor, Units]]:
    """Read what `write_mask_file` wrote.

    Returns:
        For each parameter, in the order in which they were written, its tensor and its units; that
        these fit each other is not checked.

    Raises:
        OSError: the file cannot be read.
        SafetensorError: it is no file of safetensors.
        ValueError: it holds something else.
    """
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise ValueError("it holds no masks: write them with masks.save(path)")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # The file sorts the tensors by name; the metadata has the model's order.
    shapes = parse_object(metadata.get("units", ""), strict=True)
    if set(shapes) != set(tensors):
        raise BrokenJSONError("its metadata names other parameters than it holds")
    return {name: (tensors[name], _units(name, shape)) for name, shape in shapes.items()}


def _units(name: str, described: object) -> Units:
    """Read a parameter's units from a file's metadata, which may be wrong or hostile."""
    if not isinstance(described, dict) or set(described) != {"shape", "view", "unit"}:
        raise BrokenJSONError(f"it does not describe the units of {quoted(name)}")
    shape, view, unit = (_sizes(name, described[part]) for part in ("shape", "view", "unit"))
    # As `units_of` makes them: units span whole dimensions of the shape, or of the shape with its
    # first dimension split into two.
    split = len(view) == len(shape) + 1 and (math.prod(view[:2]), *view[2:]) == shape
    whole = len(unit) == len(view) and all(u in (1, v) for u, v in zip(unit, view, strict=True))
    if not whole or not (view == shape or split):
        raise BrokenJSONError(f"the units of {quoted(name)} do not fit into its shape")
    return Units(shape, view, unit)


def _sizes(name: str, found: Any) -> tuple[int, ...]:
    valid = isinstance(found, list) and len(found) <= _MOST_DIMENSIONS
    if not valid or not all(type(size) is int and size >= 0 for size in found):
        raise BrokenJSONError(f"the shape of {quoted(name)} is no list of sizes")
    if math.prod(size or 1 for size in found) > _MOST_ELEMENTS:
        raise BrokenJSONError(f"{quoted(name)} is larger than any parameter")
    return tuple(found)
