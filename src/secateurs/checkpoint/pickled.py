"""What ``torch.save`` writes: where its tensors lie, told without loading them."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from secateurs.checkpoint.stored import NAMES, Entry, StoredFile
from secateurs.checkpoint.writing import write_all
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.layout import storage_order
from secateurs.zoo.checkpoint import read_weights

_DESCRIPTOR = b"PK\x07\x08"
_PIECE = 1 << 20
# Tensors whose values lie in another order are put in order in memory.
_HELD = 1 << 27

_Place = tuple[int, int, str, tuple[int, ...], tuple[int, ...] | None]


@dataclass(frozen=True)
class _Record:
    """One record of the zip archive: its place, its size, and where its checksum stands."""

    start: int
    size: int
    checksums: tuple[int, ...]


def read_pickled(path: Path) -> StoredFile:
    """Find the tensors in a file of ``torch.save``, by name, without reading their values.

    Nothing is unpickled that could run code. Names that share a tensor become one entry.

    Raises:
        InvalidArgumentError: it holds code, no weights, weights in an unusual memory layout, or is
            of the format from before PyTorch 1.6.
        FailureError: it is damaged.
    """
    if not zipfile.is_zipfile(path):
        read_weights(path)  # for its errors
        raise InvalidArgumentError(
            f"{path} is in the format that torch.save wrote before version 1.6: load it with "
            "weights_only=True, save it again, and give that"
        )
    # Tensors without values: they know where in the file these lie.
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        state = read_weights(path)
    records = {record.start: record for record in _records(path)}
    found: dict[_Place, list[str]] = {}
    for name, tensor in state.items():
        place = _place(path, name, tensor, records)
        if place is not None:
            found.setdefault(place, []).append(name)
    entries = tuple(
        Entry(names[0], dtype, shape, start, stop, tuple(names[1:]), strides)
        for (start, stop, dtype, shape, strides), names in found.items()
    )
    return StoredFile(path, path.stat().st_size, entries, pickled=True)


def mend_checksums(path: Path, entries: list[Entry], target: FileIO) -> None:
    """Write the checksums of the records that have changed.

    Args:
        path: the old file.
        entries: the tensors that have changed.
        target: the new file, which holds all values.
    """
    for record in _records(path):
        end = record.start + record.size
        if not any(record.start <= e.start and e.stop <= end for e in entries if e.nbytes):
            continue
        checksum, left = 0, record.size
        target.seek(record.start)
        while left:
            piece = target.read(min(_PIECE, left))
            checksum, left = zlib.crc32(piece, checksum), left - len(piece)
        for place in record.checksums:
            write_all(target, place, memoryview(struct.pack("<I", checksum)))


def _place(
    path: Path, name: str, tensor: torch.Tensor, records: dict[int, _Record]
) -> _Place | None:
    """The bytes of a tensor; None for what cannot be pruned and has no name in safetensors."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in NAMES:
        return None
    storage: Any = tensor.untyped_storage()
    record = records.get(getattr(storage, "_checkpoint_offset", -1))
    if tensor.numel() == 0:
        start = 0 if record is None else record.start
        return start, start, NAMES[tensor.dtype], tuple(tensor.shape), None
    size = tensor.element_size()
    if record is None or storage.nbytes() > record.size:
        raise _damaged(path, f"{name} lies outside its record")
    start = record.start + int(tensor.storage_offset()) * size
    stop = start + tensor.numel() * size
    if stop > record.start + record.size:
        raise _damaged(path, f"{name} is larger than its record")
    strides = None if tensor.is_contiguous() else _strides(path, name, tensor)
    return start, stop, NAMES[tensor.dtype], tuple(tensor.shape), strides


def _strides(path: Path, name: str, tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides of a tensor that fills its memory in another order, as ``channels_last``."""
    order = storage_order(tensor)
    if not tensor.permute(order).is_contiguous() or tensor.nbytes > _HELD:
        raise InvalidArgumentError(
            f"{name} lies in {path} with gaps or in another order than that of its elements, and "
            f"is too large to be put in order ({_HELD >> 20} MiB): save tensor.contiguous() instead"
        )
    return tuple(tensor.stride())


def _records(path: Path) -> list[_Record]:
    """The records of the archive, none of which torch compresses."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            found: list[_Record] = []
            directory = archive.start_dir
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED:
                    raise _damaged(path, f"{info.filename} is compressed")
                small = info.file_size < 16
                ordered = small and info.filename.endswith("/byteorder")
                if ordered and archive.read(info) != b"little":
                    raise InvalidArgumentError(
                        f"{path} was saved on a machine of the other byte order: save it again"
                    )
                file.seek(info.header_offset)
                local = file.read(30)
                file.seek(directory)
                central = file.read(46)
                if local[:4] != b"PK\x03\x04" or central[:4] != b"PK\x01\x02":
                    raise _damaged(path, "its directory points elsewhere")
                start = info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
                checksums = [directory + 16]
                if info.flag_bits & 8:
                    file.seek(start + info.file_size)
                    if file.read(4) == _DESCRIPTOR:
                        checksums.append(start + info.file_size + 4)
                else:
                    checksums.append(info.header_offset + 14)
                found.append(_Record(start, info.file_size, tuple(checksums)))
                directory += 46 + sum(struct.unpack("<HHH", central[28:34]))
            return found
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error


def _damaged(path: Path, why: str) -> FailureError:
    return FailureError(
        f"cannot read {path} as a PyTorch checkpoint ({why}): it is damaged, get the file again"
    )
