"""The contents of a file: tensors, each a range of its bytes."""

from dataclasses import dataclass
from pathlib import Path

import torch

from secateurs.checkpoint.file_identity import Identity

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
"""The dtypes that can be pruned: floating point, with a zero of all zero bits."""

DTYPES = {
    **FLOATS,
    "F8_E8M0": torch.float8_e8m0fnu,
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "C64": torch.complex64,
}
"""torch's dtypes, by their names in safetensors."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""The names of torch's dtypes in safetensors."""

BITS = {
    **{name: 8 * dtype.itemsize for name, dtype in DTYPES.items()},
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
"""Bits per element, by the names of dtypes in safetensors; torch does not have the last three."""

LONGEST_NAME = 1000
"""The most characters of a tensor's name; no model has longer ones, and errors quote names."""

MOST_DIMENSIONS = 64
"""The most dimensions of a tensor, as in numpy."""


@dataclass(frozen=True)
class Entry:
    """One tensor in a file.

    Attributes:
        name: its name; the first one, where several names share it.
        dtype: the name of its dtype in safetensors.
        shape: its shape.
        start: the offset of its first byte in the file.
        stop: the offset after its last byte.
        aliases: further names of the same bytes: in a file of ``torch.save``, or in the metadata of
            safetensors.
        strides: the strides in elements, if ``torch.save`` wrote the values in another order than
            that of the flat index; None otherwise.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    aliases: tuple[str, ...] = ()
    strides: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """The size of its values in bytes."""
        return self.stop - self.start

    @property
    def itemsize(self) -> int:
        """Bytes per element, at least one."""
        return max(BITS[self.dtype] // 8, 1)

    @property
    def count(self) -> int:
        """The number of its elements."""
        return torch.Size(self.shape).numel()

    @property
    def names(self) -> tuple[str, ...]:
        """All its names; `name` is the first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint.

    Attributes:
        path: the file.
        size: its bytes; of a compressed file, the bytes after decompression.
        entries: its tensors, in the order in which ties are broken.
        metadata: the ``__metadata__`` of safetensors, None if there is none.
        pickled: whether ``torch.save`` wrote it.
        torch_only: the names of tensors of ``torch.save`` whose dtypes safetensors does not have.
        compressed: whether it is a zstd stream of safetensors; offsets are those after
            decompression.
        identity: the file's identity when its header was read.
    """

    path: Path
    size: int
    entries: tuple[Entry, ...]
    metadata: dict[str, str] | None = None
    pickled: bool = False
    torch_only: tuple[str, ...] = ()
    compressed: bool = False
    identity: Identity | None = None
