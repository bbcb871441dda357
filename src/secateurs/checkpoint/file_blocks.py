"""Bytes of files, read block by block into one buffer."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secateurs._tensors.blocks import Array
from secateurs.checkpoint.contents import Entry
from secateurs.checkpoint.file_identity import Identity, check_same
from secateurs.checkpoint.quantized_weights import StoredScale
from secateurs.errors import FailureError

BLOCK = 1 << 18
"""Elements read and counted together."""

INTEGERS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}
"""Integers by their size in bytes."""

Advance = Callable[[int], object]
"""Called with the number of bytes after each read."""

_AHEAD = 1 << 23  # bytes asked of the disk before they are needed


@dataclass(frozen=True)
class Weight:
    """A tensor that competes.

    Attributes:
        path: the file that holds it.
        entry: where in the file.
        size: the elements of one unit.
        columns: 1 if the elements of a unit follow each other in memory, else the number of units
            whose elements alternate: units are then columns of matrices.
        scale: the scale that its values are multiplied with, if it is quantised.
        block: elements looked at together, at most `BLOCK`.
    """

    path: Path
    entry: Entry
    size: int
    columns: int = 1
    scale: StoredScale | None = None
    block: int = BLOCK

    @property
    def units(self) -> int:
        """How many units it has."""
        return self.entry.count // self.size

    @property
    def step(self) -> int:
        """Elements read together if units are not wide: a whole number of units."""
        return max(self.block // self.size, 1) * self.size

    @property
    def is_wide(self) -> bool:
        """Whether the elements of a unit are not all in one block."""
        return self.size > self.block or self.columns > 1

    def grids(self) -> Iterator["ElementGrid"]:
        """Yield grids of at most a block, in order, that cover a weight whose units are wide."""
        across = self.columns
        for base in range(0, self.entry.count, self.size * across):
            unit = base // self.size
            if across <= self.block:
                step = self.block // across
                for row in range(0, self.size, step):
                    rows = min(step, self.size - row)
                    yield ElementGrid(base + row * across, rows, across, unit)
                continue
            for row in range(self.size):
                for column in range(0, across, self.block):
                    width = min(self.block, across - column)
                    yield ElementGrid(base + row * across + column, 1, width, unit + column)


class ElementGrid(NamedTuple):
    """Elements that follow each other: rows, with one element of each unit in a row.

    Attributes:
        start: the first element.
        rows: how many elements of each unit there are.
        columns: how many units there are.
        unit: the number of the first unit.
    """

    start: int
    rows: int
    columns: int
    unit: int

    @property
    def stop(self) -> int:
        """The element after the last."""
        return self.start + self.rows * self.columns

    @property
    def units(self) -> slice:
        """The units."""
        return slice(self.unit, self.unit + self.columns)


class Reader:
    """Reads one file.

    Args:
        path: the file.
        file: it, opened for reading without a buffer.
        buffer: what is read into.
        advance: called with the number of bytes after each read.
    """

    def __init__(self, path: Path, file: FileIO, buffer: Array, advance: Advance | None):
        self._path, self._file, self._buffer, self._advance = path, file, buffer, advance
        self._asked_until = 0
        self._ordered: tuple[Entry, Array] | None = None

    def elements(self, entry: Entry, start: int, stop: int) -> Array:
        """The bytes of a tensor's elements by flat index, valid until the next call."""
        size = entry.itemsize
        if entry.strides is None:
            return self.read(entry.start + start * size, entry.start + stop * size)
        if self._ordered is None or self._ordered[0] != entry:
            self._ordered = entry, self._in_order(entry)
        values = self._buffer[: (stop - start) * size]
        values[:] = self._ordered[1][start * size : stop * size]
        return values

    def element_blocks(
        self, entry: Entry, start: int, stop: int, step: int = BLOCK
    ) -> Iterator[tuple[int, Array]]:
        """Yield the bytes of each block of ``step`` elements, with the index of the first."""
        for index in range(start, stop, step):
            yield index, self.elements(entry, index, min(index + step, stop))

    def _in_order(self, entry: Entry) -> Array:
        """All bytes of a tensor with strides, in the order of the flat index; it is held whole."""
        values = np.empty(entry.nbytes, np.uint8)
        for offset, block in self.blocks(entry.start, entry.stop):
            values[offset - entry.start :][: len(block)] = block
        return np.ascontiguousarray(strided(values, entry)).reshape(-1).view(np.uint8)

    def read(self, start: int, stop: int, *, ahead: bool = True) -> Array:
        """Return the bytes from ``start`` to ``stop``, valid until the next call.

        Args:
            start: the first byte.
            stop: the byte after the last; at most 8 * `BLOCK` bytes.
            ahead: whether what follows will be read next.

        Raises:
            FailureError: the file ends before, or cannot be read.
        """
        wanted = self._buffer[: stop - start]
        if len(wanted) < stop - start:
            raise ValueError(f"{stop - start} bytes do not fit into the buffer")
        if ahead:
            self._ask(start, stop)
        try:
            self._file.seek(start)
            done = 0
            while done < len(wanted):
                got = self._file.readinto(wanted.data[done:])
                if not got:
                    raise FailureError(
                        f"cannot read {self._path}: it ends after {start + done:,} bytes, and was "
                        "longer a moment ago; let nobody write to it meanwhile"
                    )
                done += got
        except OSError as error:
            raise FailureError(f"cannot read {self._path}: {error.strerror or error}") from error
        if self._advance is not None:
            self._advance(len(wanted))
        return wanted

    def blocks(self, start: int, stop: int, step: int | None = None) -> Iterator[tuple[int, Array]]:
        """Yield blocks of ``step`` bytes, by default of a full buffer, each with its offset."""
        step = len(self._buffer) if step is None else step
        for offset in range(start, stop, step):
            yield offset, self.read(offset, min(offset + step, stop))

    def _ask(self, start: int, stop: int) -> None:
        """Ask the system to read ahead what comes next."""
        if self._asked_until < start or self._asked_until > stop + 2 * _AHEAD:
            self._asked_until = stop
        if hasattr(os, "posix_fadvise") and self._asked_until <= stop + _AHEAD:
            os.posix_fadvise(self._file.fileno(), self._asked_until, _AHEAD, os.POSIX_FADV_WILLNEED)
            self._asked_until += _AHEAD


def strided(values: Array, entry: Entry) -> Array:
    """See the bytes of a tensor, in the order of the file, in its shape, as integers."""
    numbers = values.view(INTEGERS[entry.itemsize])
    strides = [entry.itemsize * stride for stride in entry.strides or ()]
    return np.lib.stride_tricks.as_strided(numbers, entry.shape, strides)


class Buffers:
    """One buffer for all files.

    Args:
        advance: called with the number of bytes after each read.
        identities: the identity of each file: another that has taken its name is refused.
    """

    def __init__(
        self, advance: Advance | None = None, identities: Mapping[Path, Identity] | None = None
    ):
        self._advance = advance
        self._identities = identities or {}
        self._bytes = np.empty(8 * BLOCK, np.uint8)

    @contextmanager
    def reader(self, path: Path) -> Generator[Reader]:
        """Open a file.

        Raises:
            FailureError: it cannot be opened, or is not the file whose header was read.
        """
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise FailureError(f"cannot read {path}: {error.strerror or error}") from error
        with file:
            check_same(path, file.fileno(), self._identities.get(path))
            yield Reader(path, file, self._bytes, self._advance)
