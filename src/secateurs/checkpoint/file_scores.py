"""Keys of the units of stored weights, block by block."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch

from secateurs._tensors.blocks import Array, numpy_integer
from secateurs._tensors.float_keys import Scores, key_dtype, key_integer, key_of, magnitude_bits
from secateurs.checkpoint.contents import FLOATS
from secateurs.checkpoint.file_blocks import BLOCK, Buffers, Reader, Weight
from secateurs.checkpoint.quantized_weights import StoredScale


class Keys(Protocol):
    """A source of the keys of units: integers in the order of their scores.

    Attributes:
        dtype: the float format of the keys.
        signed: whether scores may be below zero.
    """

    dtype: torch.dtype
    signed: bool

    def begin(self, weight: Weight) -> None:
        """Start at the weight's first unit."""
        ...

    def of(self, weight: Weight, values: Array | None, count: int, start: int = 0) -> Array:
        """Return the next ``count`` keys of a weight, valid until the next call.

        ``start`` is the flat index of the first element of ``values``.
        """
        ...


class KeysInOrder(ABC):
    """Keys that are not computed from the values of a block, but given one after another.

    Args:
        dtype: as for `Keys`.
        signed: as for `Keys`.
    """

    def __init__(self, dtype: torch.dtype, *, signed: bool):
        self.dtype, self.signed = dtype, signed

    @abstractmethod
    def begin(self, weight: Weight) -> None:
        """Start at the weight's first unit."""

    @abstractmethod
    def next_keys(self, count: int) -> Array:
        """The keys of the next ``count`` units."""

    def of(
        self,
        weight: Weight,  # noqa: ARG002
        values: Array | None,  # noqa: ARG002
        count: int,
        start: int = 0,  # noqa: ARG002
    ) -> Array:
        """The keys of the next ``count`` units."""
        return self.next_keys(count)


class Scratch:
    """Buffers for the keys of a block, one for each dtype, that groups of weights share."""

    def __init__(self) -> None:
        self._arrays: dict[np.dtype[Any], Array] = {}

    def keys(self, integer: np.dtype[Any]) -> Array:
        """A buffer of one block of this dtype, the same one at every call."""
        if integer not in self._arrays:
            self._arrays[integer] = np.empty(BLOCK, integer)
        return self._arrays[integer]


class MagnitudeKeys:
    """Keys of magnitudes: absolute values, summed over units.

    Args:
        weights: the tensors that compete with each other; their dtypes decide that of the keys.
        scratch: holds the keys. Only one of the objects that share it may be in use.
    """

    def __init__(self, weights: Sequence[Weight], scratch: Scratch):
        kinds = {_score_dtype(weight) for weight in weights}
        self.dtype = key_dtype([Scores("", torch.empty(0, dtype=d), absolute=True) for d in kinds])
        self.signed = False
        self._keys = scratch.keys(numpy_integer(self.dtype))
        self._mask = self._keys.dtype.type(magnitude_bits(self.dtype))
        self._scale: tuple[StoredScale, Array] | None = None  # that of the latest weight

    def begin(self, weight: Weight) -> None:
        """Nothing to do: magnitudes come from the values."""

    def of(self, weight: Weight, values: Array | None, count: int, start: int = 0) -> Array:
        """The keys of ``count`` units, of which ``values`` are the bytes."""
        if values is None:
            raise ValueError("magnitudes come from values")
        keys = self._keys[:count]
        own = FLOATS[weight.entry.dtype]
        if weight.size > 1 or weight.scale is not None:
            numbers = self.numbers(weight, values, start)
            sums = numbers.view(count, weight.size)
            sums = sums.sum(1, dtype=torch.float64) if weight.size > 1 else numbers
            keys[:] = key_of(sums.to(_score_dtype(weight)), self.dtype, absolute=True).numpy()
        elif own == self.dtype:
            np.bitwise_and(values.view(keys.dtype), self._mask, out=keys)
        else:
            # torch converts into a float tensor that shares the memory of the keys.
            floats = torch.from_numpy(keys).view(self.dtype)
            floats.copy_(torch.from_numpy(values).view(own))
            np.bitwise_and(keys, self._mask, out=keys)
        return keys

    def numbers(self, weight: Weight, values: Array, start: int) -> torch.Tensor:
        """The absolute values of a weight's elements from ``start``, with its scale if it has one.

        Args:
            weight: the weight.
            values: the bytes of these elements.
            start: the flat index of the first.
        """
        numbers = torch.from_numpy(values).view(FLOATS[weight.entry.dtype])
        numbers = (numbers.float() if numbers.element_size() == 1 else numbers).abs()
        if weight.scale is None:
            return numbers
        if self._scale is None or self._scale[0] != weight.scale:
            self._scale = weight.scale, weight.scale.read()
        factors = weight.scale.factors(self._scale[1], start, start + len(numbers))
        return numbers.mul_(torch.from_numpy(factors)).abs_()

    def of_sums(self, weight: Weight, sums: torch.Tensor) -> Array:
        """The keys of float64 sums over units."""
        return key_of(sums.to(_score_dtype(weight)), self.dtype, absolute=True).numpy()


class RandomKeys(KeysInOrder):
    """Keys of random scores, the same numbers that pruning a model draws.

    Args:
        weights: every tensor that competes, in order.
        generator: draws all their scores; what it draws next comes after them.
    """

    def __init__(self, weights: Sequence[Weight], generator: torch.Generator):
        super().__init__(torch.float64, signed=False)
        self._numbers = torch.empty(BLOCK, dtype=torch.float64)
        self._generator = torch.Generator()
        self._states: dict[tuple[str, str], torch.Tensor] = {}
        for weight in weights:
            self._states[str(weight.path), weight.entry.name] = generator.get_state()
            for start in range(0, weight.units, weight.block):
                count = min(weight.block, weight.units - start)
                torch.rand(count, generator=generator, out=self._numbers[:count])

    def begin(self, weight: Weight) -> None:
        """Go back to the state from which this weight's scores were drawn."""
        self._generator.set_state(self._states[str(weight.path), weight.entry.name])

    def next_keys(self, count: int) -> Array:
        """The keys of the next ``count`` scores."""
        numbers = torch.rand(count, generator=self._generator, out=self._numbers[:count])
        return numbers.view(key_integer(self.dtype)).numpy()


def key_stream(
    weights: Iterable[Weight], keys: Keys, buffers: Buffers
) -> Iterator[tuple[Weight, Array]]:
    """Yield the keys of all units, in order; each array is valid until the next one."""
    for path, inside in groupby(weights, key=lambda weight: weight.path):
        with buffers.reader(path) as reader:
            for weight in inside:
                for block in _blocks(weight, keys, reader):
                    yield weight, block


def wide_keys(weight: Weight, keys: Keys, reader: Reader) -> Array:
    """The keys of all units of a weight whose units are wide; there are few of them."""
    keys.begin(weight)
    if not isinstance(keys, MagnitudeKeys):
        return np.concatenate([block.copy() for block in _in_order(weight, keys)])
    entry, sums = weight.entry, torch.zeros(weight.units, dtype=torch.float64)
    for grid in weight.grids():
        values = reader.elements(entry, grid.start, grid.stop)
        numbers = keys.numbers(weight, values, grid.start).view(grid.rows, grid.columns)
        sums[grid.units] += numbers.sum(0, dtype=torch.float64)
    return keys.of_sums(weight, sums)


def _blocks(weight: Weight, keys: Keys, reader: Reader) -> Iterator[Array]:
    if weight.is_wide:
        all_keys = wide_keys(weight, keys, reader)
        for start in range(0, len(all_keys), weight.block):
            yield all_keys[start : start + weight.block]
        return
    keys.begin(weight)
    if not isinstance(keys, MagnitudeKeys):
        yield from _in_order(weight, keys)
        return
    entry = weight.entry
    for start, values in reader.element_blocks(entry, 0, entry.count, weight.step):
        yield keys.of(weight, values, len(values) // (weight.size * entry.itemsize), start)


def _in_order(weight: Weight, keys: Keys) -> Iterator[Array]:
    for start in range(0, weight.units, weight.block):
        yield keys.of(weight, None, min(weight.block, weight.units - start))


def _score_dtype(weight: Weight) -> torch.dtype:
    own = FLOATS[weight.entry.dtype]
    if weight.size == 1 and weight.scale is None:
        return own
    return torch.float64 if own == torch.float64 else torch.float32  # as Units.pool
