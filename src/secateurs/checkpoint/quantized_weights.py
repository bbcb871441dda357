"""Quantised weights in files: find and read their scales, refuse those that cannot be pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from secateurs._io.json_objects import read_object_file
from secateurs._io.regular_files import reading
from secateurs._io.text import listed, quoted
from secateurs._tensors.blocks import Array
from secateurs._tensors.quantization_scales import (
    further_name,
    scale_name,
    scale_steps,
    scales_of,
    scaling_names,
    unknown_name,
)
from secateurs.checkpoint.contents import BITS, DTYPES, FLOATS, Entry
from secateurs.errors import Argument, FailureError, InvalidArgumentError

_PACKED = ("qweight", "weight_packed")
_BLOCKS, _SCALES = "_blocks", "_scales"  # of experts in MXFP4; the fourth dimension is groups

FileTensor = tuple[Path, Entry]
"""A tensor, and the file that holds it."""


@dataclass(frozen=True)
class StoredScale:
    """The scale of a weight.

    Attributes:
        path: the file that holds it.
        entry: its name, dtype, shape and offsets.
        shape: the weight's shape.
        steps: the size of the block of the weight that one of its numbers scales.
    """

    path: Path
    entry: Entry
    shape: tuple[int, ...]
    steps: tuple[int, ...]

    def read(self) -> Array:
        """Its numbers, float32, one for each block of the weight."""
        entry = self.entry
        with reading(self.path), self.path.open("rb") as file:
            file.seek(entry.start)
            values = bytearray(file.read(entry.nbytes))
        if len(values) < entry.nbytes:
            raise FailureError(
                f"cannot read {self.path}: it has become shorter since it was opened"
            )
        numbers = torch.frombuffer(values, dtype=DTYPES[entry.dtype]).float()
        blocks = [-(-size // step) for size, step in zip(self.shape, self.steps, strict=True)]
        return numbers.reshape(blocks).numpy()

    def factors(self, numbers: Array, start: int, stop: int) -> Array:
        """The scale of each element from ``start`` to ``stop``; ``numbers`` are from `read`."""
        width = self.shape[-1] if self.shape else 1
        first = start // width
        rows = np.arange(first, -(-stop // width))
        indices = np.unravel_index(rows, self.shape[:-1]) if len(self.shape) > 1 else ()
        picked = numbers[tuple(i // s for i, s in zip(indices, self.steps, strict=False))]
        wide = np.repeat(picked.reshape(-1, numbers.shape[-1]), self.steps[-1], axis=1)
        return wide[:, :width].reshape(-1)[start - first * width : stop - first * width]


class Scales:
    """Finds the scales of float8 weights.

    Args:
        tensors: all tensors of the checkpoint, by name.
        config: the configuration of the model, which may have the size of the blocks that share a
            number of a scale. It is read if it exists and a scale has blocks.
    """

    def __init__(self, tensors: Mapping[str, FileTensor], config: Path):
        self._tensors, self._config = tensors, config
        self._scaling = scaling_names(tensors)

    def of(self, entry: Entry, *, outputs_last: bool) -> StoredScale | None:
        """The scale of a weight; None if it has none, or is not quantised.

        Args:
            entry: the weight.
            outputs_last: whether its outputs are its last dimension.

        Raises:
            InvalidArgumentError: it has a scale that cannot be applied.
        """
        if BITS[entry.dtype] != 8 or entry.dtype not in FLOATS or not entry.shape:
            return None
        name = scale_name(entry.name, self._tensors)
        further = further_name(entry.name, self._tensors)
        if name is None:
            further = further or unknown_name(entry.name, self._scaling)
        if further is not None:
            raise _not_applied(entry, f"is quantised with {quoted(further)} beside it")
        if name is None:
            return None
        path, scale = self._tensors[name]
        known = scale.dtype in FLOATS or scale.dtype == "F8_E8M0"
        if not known or scale.strides is not None:
            raise _not_applied(entry, f"has the scale {quoted(name)} of dtype {scale.dtype}")
        block = self._block_size() if scale.count > 1 and len(scale.shape) > 1 else None
        steps = scale_steps(entry.name, entry.shape, scale.shape, block, outputs_last=outputs_last)
        return StoredScale(path, scale, entry.shape, steps)

    def _block_size(self) -> list[int] | None:
        """The size of a block; None if the configuration does not have it."""
        if not self._config.is_file():
            return None
        quantization = read_object_file(self._config).get("quantization_config")
        block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
        if not isinstance(block, list) or len(block) != 2:
            return None
        return block if all(type(size) is int and size > 0 for size in block) else None


def _not_applied(entry: Entry, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{quoted(entry.name)} {what}, which is not applied here: dequantise it first, or write ",
        Argument("exclude", entry.name),
    )


def as_if_dense(entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, str]]:
    """Describe quantised integers that have a scale as if they were floating point.

    Returns:
        All tensors; and by the new name of each such integer tensor its name in the file.
    """
    names = {name for entry in entries for name in entry.names}
    changed: dict[str, str] = {}
    found: list[Entry] = []
    for entry in entries:
        dense = _dense(entry, names)
        if dense is None:
            found.append(entry)
        else:
            changed[dense.name] = entry.name
            found.append(dense)
    return found, changed


def scales_among(entries: Sequence[Entry]) -> set[str]:
    """The names of the tensors that are scales of quantised weights, not weights."""
    names = {name for entry in entries for name in entry.names}
    weights = [e.name for e in entries if BITS[e.dtype] == 8 and len(e.shape) > 1]
    weights += as_if_dense(entries)[1]
    return scales_of(weights, names)


def refuse_quantized(chosen: Sequence[Entry], changed: Mapping[str, str]) -> None:
    """Refuse integers among the tensors that compete."""
    found = [changed[entry.name] for entry in chosen if entry.name in changed]
    if found:
        raise InvalidArgumentError(
            f"{listed(map(quoted, found))} are quantised integers, which cannot be pruned: prune "
            "the checkpoint before it is quantised, or write ",
            Argument("include"),
            " with what is floating point in this one",
        )


def _dense(entry: Entry, names: set[str]) -> Entry | None:
    """A quantised integer weight as floating point; None for every other tensor."""
    if entry.dtype in FLOATS or len(entry.shape) < 2:
        return None
    name, shape = entry.name, entry.shape
    module, dot, attribute = name.rpartition(".")
    if attribute in _PACKED:
        name = f"{module}{dot}weight"
    elif attribute.endswith(_BLOCKS) and name.removesuffix(_BLOCKS) + _SCALES in names:
        return replace(entry, name=name.removesuffix(_BLOCKS), shape=shape[:3], dtype="F32")
    scaled = scale_name(name, names) or further_name(name, names)
    if scaled is None or (name != entry.name and name in names):
        return None
    return replace(entry, name=name, dtype="F32")
