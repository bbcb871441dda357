"""Keys of the units of stored weights, block by block."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs._tensors.float_keys import Scores, key_dtype, key_integer, key_of, magnitude_bits
from secateurs.checkpoint.contents import FLOATS
from secateurs.checkpoint.file_blocks import BLOCK, Buffers, Reader, Weight
from secateurs.checkpoint.file_identity import Identity
from secateurs.checkpoint.quantized_weights import StoredScale
from secateurs.criteria import Criterion
from secateurs.masks.granularity import Units
from secateurs.parameters.target import Target
from secateurs.selection.unit_scores import score_units


class Keys:
    """A source of the keys of units: integers in the order of their scores.

    A subclass has `of`, if keys are computed from the values of a block, or else `next_keys`.

    Attributes:
        dtype: the float format of the keys.
        signed: whether scores may be below zero.
    """

    def __init__(self, dtype: torch.dtype, *, signed: bool):
        self.dtype, self.signed = dtype, signed

    def begin(self, weight: Weight) -> None:
        """Start at the weight's first unit."""

    def next_keys(self, count: int) -> Array:
        """The keys of the next ``count`` units, valid until the next call."""
        raise NotImplementedError

    def of(self, weight: Weight, values: Array | None, count: int, start: int = 0) -> Array:  # noqa: ARG002
        """The keys of the next ``count`` units of a weight, valid until the next call.

        ``values`` are the bytes of the elements from the flat index ``start``, if they were read.
        """
        return self.next_keys(count)

    def blocks(self, weight: Weight, reader: Reader) -> Iterator[Array]:  # noqa: ARG002
        """Yield the keys of all units of a weight, in order; each array is valid until the next."""
        self.begin(weight)
        for start in range(0, weight.units, weight.block):
            yield self.next_keys(min(weight.block, weight.units - start))


class MagnitudeKeys(Keys):
    """Keys of magnitudes: absolute values, summed over units.

    Args:
        dtype: the float format of the keys, see `magnitude_dtype`.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__(dtype, signed=False)
        self._keys = np.empty(BLOCK, numpy_integer(dtype))
        self._mask = self._keys.dtype.type(magnitude_bits(self.dtype))
        self._scale: tuple[StoredScale, Array] | None = None  # that of the latest weight

    def of(self, weight: Weight, values: Array | None, count: int, start: int = 0) -> Array:
        """The keys of ``count`` units, of which ``values`` are the bytes."""
        if values is None:
            raise ValueError("magnitudes come from values")
        keys = self._keys[:count]
        own = FLOATS[weight.entry.dtype]
        if weight.size > 1 or weight.scale is not None:
            numbers = self._numbers(weight, values, start).view(count, weight.size)
            keys[:] = self._of_sums(weight, numbers.sum(1, dtype=torch.float64))
        elif own == self.dtype:
            np.bitwise_and(values.view(keys.dtype), self._mask, out=keys)
        else:
            # torch converts into a float tensor that shares the memory of the keys.
            floats = torch.from_numpy(keys).view(self.dtype)
            floats.copy_(torch.from_numpy(values).view(own))
            np.bitwise_and(keys, self._mask, out=keys)
        return keys

    def blocks(self, weight: Weight, reader: Reader) -> Iterator[Array]:
        """Yield the keys of all units of a weight, in order; each array is valid until the next."""
        entry = weight.entry
        if weight.is_wide:
            sums = torch.zeros(weight.units, dtype=torch.float64, device="cpu")
            for grid in weight.grids():
                values = reader.elements(entry, grid.start, grid.stop)
                numbers = self._numbers(weight, values, grid.start).view(grid.rows, grid.columns)
                sums[grid.units] += numbers.sum(0, dtype=torch.float64)
            keys = self._of_sums(weight, sums)
            for start in range(0, len(keys), weight.block):
                yield keys[start : start + weight.block]
            return
        start = 0
        for values in reader.element_blocks(entry, weight.step):
            elements = len(values) // entry.itemsize
            yield self.of(weight, values, elements // weight.size, start)
            start += elements

    def _numbers(self, weight: Weight, values: Array, start: int) -> torch.Tensor:
        """The absolute values of a weight's elements from ``start``, with its scale if it has one.

        ``values`` are their bytes.
        """
        numbers = torch.from_numpy(values).view(FLOATS[weight.entry.dtype])
        numbers = (numbers.float() if numbers.element_size() == 1 else numbers).abs()
        if weight.scale is None:
            return numbers
        if self._scale is None or self._scale[0] != weight.scale:
            self._scale = weight.scale, weight.scale.read()
        factors = weight.scale.factors(self._scale[1], start, start + len(numbers))
        return numbers.mul_(torch.from_numpy(factors)).abs_()

    def _of_sums(self, weight: Weight, sums: torch.Tensor) -> Array:
        """The keys of float64 sums over units."""
        return key_of(sums.to(_score_dtype(weight)), self.dtype, absolute=True).numpy()


class RandomKeys(Keys):
    """Keys of random scores, the same numbers that pruning a model draws.

    Args:
        weights: every tensor that competes, in order.
        generator: draws all their scores; what it draws next comes after them.
    """

    def __init__(self, weights: Sequence[Weight], generator: torch.Generator):
        super().__init__(torch.float64, signed=False)
        self._numbers = torch.empty(BLOCK, dtype=torch.float64, device="cpu")
        self._generator = torch.Generator()
        self._states: dict[tuple[str, str], torch.Tensor] = {}
        for weight in weights:
            self._states[str(weight.path), weight.entry.name] = generator.get_state()
            for start in range(0, weight.units, weight.block):
                count = min(weight.block, weight.units - start)
                torch.rand(count, generator=generator, out=self._numbers[:count], device="cpu")

    def begin(self, weight: Weight) -> None:
        """Go back to the state from which this weight's scores were drawn."""
        self._generator.set_state(self._states[str(weight.path), weight.entry.name])

    def next_keys(self, count: int) -> Array:
        """The keys of the next ``count`` scores."""
        out = self._numbers[:count]
        numbers = torch.rand(count, generator=self._generator, out=out, device="cpu")
        return numbers.view(key_integer(self.dtype)).numpy()


class CriterionKeys(Keys):
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
        values = torch.empty(weight.entry.shape, dtype=FLOATS[weight.entry.dtype], device="cpu")
        with self._buffers.reader(weight.path) as reader:
            reader.whole(weight.entry, values.view(-1).view(torch.uint8).numpy())
        module = nn.Module()
        module.weight = nn.Parameter(values, requires_grad=False)
        name = weight.entry.name
        target = Target(name, module.weight, ((module, "weight"),), (name,))
        scores = score_units(target, _units_of(weight), self._criterion, None).values
        keys = key_of(scores.reshape(-1), self.dtype, absolute=not self.signed)
        self._keys, self._next = keys.numpy(), 0

    def next_keys(self, count: int) -> Array:
        """The keys of the next ``count`` units."""
        self._next += count
        return self._keys[self._next - count : self._next]


def magnitude_dtype(weights: Sequence[Weight]) -> torch.dtype:
    """The float format of keys in which the magnitudes of these weights can be compared."""
    kinds = {_score_dtype(weight) for weight in weights}
    return key_dtype([Scores("", torch.empty(0, dtype=kind), absolute=True) for kind in kinds])


def _score_dtype(weight: Weight) -> torch.dtype:
    own = FLOATS[weight.entry.dtype]
    if weight.size == 1 and weight.scale is None:
        return own
    return torch.float64 if own == torch.float64 else torch.float32  # as Units.pool


def _units_of(weight: Weight) -> Units:
    """The units that the weight would have in a model."""
    shape = weight.entry.shape
    if weight.columns > 1:
        return Units(shape, shape, (*shape[:-2], 1, shape[-1]))
    kept = len(shape)
    while torch.Size(shape[kept:]).numel() < weight.size:
        kept -= 1
    return Units(shape, shape, (*shape[:kept], *(1 for _ in shape[kept:])))
