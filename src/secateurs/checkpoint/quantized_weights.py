"""Quantised weights in files: find and read their scales, refuse those that cannot be pruned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from secateurs._io.regular_files import reading
from secateurs._io.text import listed, quoted
from secateurs._tensors.blocks import Array
from secateurs._tensors.quantization_scales import (
    further_name,
    scale_name,
    scale_steps,
    scales_of,
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


def find_scale(
    weight: FileTensor,
    everything: Mapping[str, FileTensor],
    scaling: Mapping[str, Sequence[str]],
    block_size: Callable[[], Sequence[int] | None],
    *,
    outputs_last: bool = False,
) -> StoredScale | None:
    """The scale of a float8 weight; None if it has none, or is not quantised.

    Args:
        weight: the weight.
        everything: all tensors, by name.
        scaling: `secateurs._tensors.quantization_scales.scaling_names` of their names.
        block_size: returns the size of a block; None if the configuration does not have it.
        outputs_last: whether the weight's outputs are its last dimension.

    Raises:
        InvalidArgumentError: it has a scale that cannot be applied.
    """
    entry = weight[1]
    if BITS[entry.dtype] != 8 or entry.dtype not in FLOATS or not entry.shape:
        return None
    name, further = scale_name(entry.name, everything), further_name(entry.name, everything)
    if name is None:
        further = further or unknown_name(entry.name, scaling)
    if further is not None:
        raise _not_applied(entry, f"is quantised with {quoted(further)} beside it")
    if name is None:
        return None
    path, scale = everything[name]
    known = scale.dtype in FLOATS or scale.dtype == "F8_E8M0"
    if not known or scale.dtype not in DTYPES or scale.strides is not None:
        raise _not_applied(entry, f"has the scale {quoted(name)} of dtype {scale.dtype}")
    blocks = scale.count > 1 and len(scale.shape) > 1
    block = block_size() if blocks else None
    steps = scale_steps(entry.name, entry.shape, scale.shape, block, outputs_last=outputs_last)
    return StoredScale(path, scale, entry.shape, steps)


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
