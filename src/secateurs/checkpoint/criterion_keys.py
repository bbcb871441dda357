"""Keys of stored weights by any criterion that needs no data, one whole tensor at a time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from secateurs._tensors.blocks import Array
from secateurs._tensors.float_keys import key_of
from secateurs.checkpoint.contents import FLOATS
from secateurs.checkpoint.file_blocks import Buffers, Reader, Weight
from secateurs.checkpoint.file_identity import Identity
from secateurs.checkpoint.file_scores import KeysInOrder
from secateurs.criteria import Criterion
from secateurs.masks.granularity import Units
from secateurs.parameters.target import Target
from secateurs.selection.raw_scores import score_units


class CriterionKeys(KeysInOrder):
    """The keys by which `secateurs.select` ranks a model's units under a criterion.

    A tensor is read and scored again whenever its keys are needed, so memory holds one tensor and
    its scores.

    Args:
        criterion: uses nothing of a `Target` but its name and its weight.
        identities: the identities of the files.
    """

    def __init__(self, criterion: Criterion, identities: Mapping[Path, Identity]):
        super().__init__(torch.float64, signed=not criterion.absolute)
        self._criterion = criterion
        self._buffers = Buffers(None, identities)
        self._keys = np.empty(0, np.int64)
        self._next = 0

    def begin(self, weight: Weight) -> None:
        """Read and score a weight."""
        with self._buffers.reader(weight.path) as reader:
            values = _read(weight, reader)
        module = nn.Module()
        module.weight = nn.Parameter(values, requires_grad=False)
        name = weight.entry.name
        target = Target(name, module.weight, ((module, "weight"),), (name,))
        scores = score_units(target, _units_of(weight), self._criterion.name, None).values
        keys = key_of(scores.reshape(-1), self.dtype, absolute=not self.signed)
        self._keys, self._next = keys.numpy(), 0

    def next_keys(self, count: int) -> Array:
        """The keys of the next ``count`` units."""
        self._next += count
        return self._keys[self._next - count : self._next]


def _read(weight: Weight, reader: Reader) -> torch.Tensor:
    entry = weight.entry
    values = torch.empty(entry.shape, dtype=FLOATS[entry.dtype])
    flat = values.view(-1).view(torch.uint8).numpy()
    for start, block in reader.element_blocks(entry, 0, entry.count):
        flat[start * entry.itemsize :][: len(block)] = block
    return values


def _units_of(weight: Weight) -> Units:
    """The units that the weight would have in a model."""
    shape = weight.entry.shape
    if weight.columns > 1:
        return Units(shape, shape, (*shape[:-2], 1, shape[-1]))
    kept = len(shape)
    while torch.Size(shape[kept:]).numel() < weight.size:
        kept -= 1
    return Units(shape, shape, (*shape[:kept], *(1 for _ in shape[kept:])))
