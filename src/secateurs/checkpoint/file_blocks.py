"""Read files block by block into one buffer, and write them without filling the page cache."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secateurs._io.regular_files import reading
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

WINDOW = 1 << 26
"""The number of written bytes after which the system is asked to bring them to the disk."""

_AHEAD = 1 << 23  # bytes asked of the disk before they are needed


@dataclass(frozen=True)
class Weight:
    """A tensor that competes.

    Attributes:
        path: the file that holds it.
        entry: its name, dtype, shape and offsets.
        size: the number of elements of one unit.
        columns: 1 if the elements of a unit are contiguous in memory; otherwise units are the
            columns of matrices, and this is their number in one matrix.
        scale: the scale that its values are multiplied by, if it is quantised.
        block: the number of elements that are read together, at most `BLOCK`.
        spacing: how far apart consecutive inputs of an output are.
    """

    path: Path
    entry: Entry
    size: int
    columns: int = 1
    scale: StoredScale | None = None
    block: int = BLOCK
    spacing: int = 1

    @property
    def units(self) -> int:
        """The number of its units."""
        return self.entry.count // self.size

    @property
    def step(self) -> int:
        """The number of elements read together, if units are not wide: a whole number of units."""
        return max(self.block // self.size, 1) * self.size

    @property
    def is_wide(self) -> bool:
        """Whether the elements of one unit are in several blocks."""
        return self.size > self.block or self.columns > 1

    def grids(self) -> Iterator["ElementGrid"]:
        """Yield grids of at most one block that cover a weight with wide units, in order."""
        rows, width = max(self.block // self.columns, 1), min(self.columns, self.block)
        for base in range(0, self.entry.count, self.size * self.columns):
            for row in range(0, self.size, rows):
                for column in range(0, self.columns, width):
                    yield ElementGrid(
                        start=base + row * self.columns + column,
                        rows=min(rows, self.size - row),
                        columns=min(width, self.columns - column),
                        unit=base // self.size + column,
                    )


class ElementGrid(NamedTuple):
    """Contiguous elements, as rows that hold one element of each unit.

    Attributes:
        start: the flat index of the first element.
        rows: the number of elements of each unit.
        columns: the number of units.
        unit: the index of the first unit.
    """

    start: int
    rows: int
    columns: int
    unit: int

    @property
    def stop(self) -> int:
        """The flat index after the last element."""
        return self.start + self.rows * self.columns

    @property
    def units(self) -> slice:
        """The indices of the units."""
        return slice(self.unit, self.unit + self.columns)


class Reader:
    """Reads one file, opened without a buffer; ``advance`` learns the bytes of each read."""

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

    def element_blocks(self, entry: Entry, step: int = BLOCK) -> Iterator[Array]:
        """Yield the bytes of all elements of a tensor, ``step`` elements at a time, in order."""
        for index in range(0, entry.count, step):
            yield self.elements(entry, index, min(index + step, entry.count))

    def whole(self, entry: Entry, target: Array) -> None:
        """Read all bytes of a tensor's elements, by flat index, into an array."""
        fill(target, self.element_blocks(entry, len(self._buffer) // entry.itemsize))

    def _in_order(self, entry: Entry) -> Array:
        """All bytes of a tensor with strides, in the order of the flat index, in memory."""
        values = np.empty(entry.nbytes, np.uint8)
        fill(values, self.blocks(entry.start, entry.stop))
        return np.ascontiguousarray(strided(values, entry)).reshape(-1).view(np.uint8)

    def read(self, start: int, stop: int, *, ahead: bool = True) -> Array:
        """Return the bytes from ``start`` to ``stop``, at most 8 * `BLOCK`, until the next call.

        ``ahead`` says whether the bytes that follow will be read next.

        Raises:
            FailureError: the file ends before, or cannot be read.
        """
        wanted = self._buffer[: stop - start]
        if len(wanted) < stop - start:
            raise ValueError(f"{stop - start} bytes do not fit into the buffer")
        if ahead:
            self._read_ahead(start, stop)
        done = 0
        with reading(self._path):
            self._file.seek(start)
            while done < len(wanted):
                got = self._file.readinto(wanted.data[done:])
                if not got:
                    raise FailureError(
                        f"cannot read {self._path}: it ends after {start + done:,} bytes, and was "
                        "longer a moment ago; let nothing write to it while it is read"
                    )
                done += got
        if self._advance is not None:
            self._advance(len(wanted))
        return wanted

    def blocks(self, start: int, stop: int) -> Iterator[Array]:
        """Yield the bytes from ``start`` to ``stop``, a full buffer at a time."""
        step = len(self._buffer)
        for offset in range(start, stop, step):
            yield self.read(offset, min(offset + step, stop))

    def _read_ahead(self, start: int, stop: int) -> None:
        """Ask the system to read the bytes that follow before they are needed."""
        if self._asked_until < start or self._asked_until > stop + 2 * _AHEAD:
            self._asked_until = stop
        if hasattr(os, "posix_fadvise") and self._asked_until <= stop + _AHEAD:
            os.posix_fadvise(self._file.fileno(), self._asked_until, _AHEAD, os.POSIX_FADV_WILLNEED)
            self._asked_until += _AHEAD


def fill(target: Array, blocks: Iterable[Array]) -> None:
    """Copy arrays, one after another, into an array of bytes."""
    offset = 0
    for values in blocks:
        target[offset : offset + values.nbytes] = values.view(np.uint8)
        offset += values.nbytes


def write_blocks(file: FileIO, start: int, blocks: Iterable[Array]) -> None:
    """Write arrays, one after another, from the byte ``start`` on."""
    for values in blocks:
        write_all(file, start, values.data.cast("B"))
        start += values.nbytes


def write_all(file: FileIO, start: int, data: memoryview, *, window: int = WINDOW) -> None:
    """Write bytes from the byte ``start`` on, however many calls it takes."""
    file.seek(start)
    done = 0
    while done < len(data):
        done += file.write(data[done:])
    _drop_cached(file, start, start + len(data), window)


def _drop_cached(file: FileIO, start: int, stop: int, window: int) -> None:
    """Drop earlier windows from the page cache; called after every write.

    A file that is larger than the free memory would otherwise displace the input that is read next,
    and every new page costs the kernel more time than pruning the weights on it. The system call
    starts to write the pages that are not on the disk yet, and drops those that are. So a window is
    written when it is full, and dropped when one of the next two is.
    """
    edge = stop // window * window
    if edge > start and hasattr(os, "posix_fadvise"):
        first = max(start // window - 2, 0) * window
        os.posix_fadvise(file.fileno(), first, edge - first, os.POSIX_FADV_DONTNEED)


def strided(values: Array, entry: Entry) -> Array:
    """A view of a tensor's bytes, in the order of the file, as integers in its shape."""
    numbers = values.view(INTEGERS[entry.itemsize])
    strides = [entry.itemsize * stride for stride in entry.strides or ()]
    return np.lib.stride_tricks.as_strided(numbers, entry.shape, strides)


class Buffers:
    """One buffer for the blocks of all files; a file with another identity is refused."""

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
        with reading(path):
            file = path.open("rb", buffering=0)
        with file:
            check_same(path, file.fileno(), self._identities.get(path))
            yield Reader(path, file, self._bytes, self._advance)
