"""Files of ``torch.save``: find the offsets of their tensors without loading the values."""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from secateurs._io.text import quoted
from secateurs._tensors.memory_order import storage_order
from secateurs.checkpoint.contents import LONGEST_NAME, MOST_DIMENSIONS, NAMES, Entry, StoredFile
from secateurs.checkpoint.file_blocks import Advance, write_all
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.archive import (
    ArchiveRecord,
    check_checksums,
    checksum,
    damaged,
    is_archive,
    read_records,
)
from secateurs.zoo.state_dicts import find_state
from secateurs.zoo.weights_file import read_pickle

# Bytes of the largest tensor whose values are in another order: memory must hold it.
_HELD = 1 << 27

# The functions with which torch rebuilds tensors that are not an array of numbers.
_UNUSUAL = {
    b"_rebuild_qtensor": "quantised tensors",
    b"_rebuild_sparse_tensor": "sparse tensors",
    b"_rebuild_nested_tensor": "nested tensors",
    b"_rebuild_wrapper_subclass": "tensor subclasses",
    b"_rebuild_from_type_v2": "tensor subclasses",
}


def read_pickled(path: Path, *, key: str | None = None, order: Sequence[str] = ()) -> StoredFile:
    """Find the tensors in a file of ``torch.save``, by name, without reading their values.

    Nothing is unpickled that could run code. Names that share a tensor become one entry. ``key``
    and ``order`` are as for `secateurs.zoo.state_dicts.find_state`.

    Raises:
        InvalidArgumentError: it holds code, no weights, several sets of them, weights in an unusual
            memory layout, or is of the format from before PyTorch 1.6.
        FailureError: it is damaged.
    """
    if not is_archive(path):
        # What is wrong with the contents is reported first.
        find_state(path, read_pickle(path, None), key=key, order=order)
        raise InvalidArgumentError(
            f"{path} is in the format that torch.save wrote before version 1.6: load it with "
            "torch.load and its default settings, save it again, and give that"
        )
    listed = read_records(path)
    records = {record.start: record for record in listed}
    state = _without_values(path, listed, key, order)
    found: dict[Entry, list[str]] = {}  # by the tensor without a name
    torch_only: list[str] = []
    for name, tensor in state.items():
        if len(name) > LONGEST_NAME:
            raise damaged(path, f"a tensor's name has {len(name):,} characters")
        entry = _unnamed(path, name, tensor, records)
        (torch_only if entry is None else found.setdefault(entry, [])).append(name)
    _refuse_repacked(path, listed)
    entries = tuple(
        replace(entry, name=names[0], aliases=tuple(names[1:])) for entry, names in found.items()
    )
    size = path.stat().st_size
    return StoredFile(path, size, entries, pickled=True, torch_only=tuple(torch_only))


def check_pickled(stored: StoredFile, advance: Advance | None = None) -> None:
    """Read the values in a file of ``torch.save`` and compare them with its checksums."""
    try:
        check_checksums(stored.path, read_records(stored.path), advance)
    finally:  # a file that has been replaced is reported as such, whatever else is wrong with it
        if stored.identity is not None:
            check_unchanged({stored.path: stored.identity})


def mend_checksums(path: Path, entries: list[Entry], target: FileIO) -> None:
    """Update, in the new file ``target``, the checksums of the records that hold ``entries``."""
    for record in read_records(path):
        if record.checksum and any(
            record.start <= e.start and e.stop <= record.stop for e in entries if e.nbytes
        ):
            found = struct.pack("<I", checksum(target, record.start, record.size))
            for offset in record.checksums:
                write_all(target, offset, memoryview(found))


def _refuse_repacked(path: Path, records: Sequence[ArchiveRecord]) -> None:
    """Refuse a file whose records have another order or alignment than torch writes.

    ``torch.load`` reads such a file correctly, but the offsets that it computes are wrong.
    """
    by_name = {record.name.partition("/")[2]: record for record in records}
    alignment = by_name.get(".storage_alignment")
    if alignment is None:
        return  # an older file, of which torch reads the offsets from the directory
    with path.open("rb") as file:
        file.seek(alignment.start)
        digits = file.read(min(alignment.size, 9))
    step = int(digits) if digits.isdigit() else 0
    numbered = {int(n[5:]): r for n, r in by_name.items() if re.fullmatch(r"data/\d{1,18}", n)}
    starts = [numbered[number].start for number in sorted(numbered)]
    if not step or starts != sorted(starts) or any(start % step for start in starts):
        raise InvalidArgumentError(
            f"{path} has been packed again since torch.save wrote it: load it with torch.load, "
            "save that again, and give the new file"
        )


def _without_values(
    path: Path, records: Sequence[ArchiveRecord], key: str | None, order: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Tensors without values, which know the offsets of their values in the file."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode():
            found = find_state(path, read_pickle(path, records), key=key, order=order)
    except FailureError:
        _refuse_unusual(path, records)
        raise
    if any(tensor.layout != torch.strided for tensor in found.values()):
        _refuse_unusual(path, records)  # torch 2.11 reads sparse tensors without their values
    return found


def _refuse_unusual(path: Path, records: Sequence[ArchiveRecord]) -> None:
    """Refuse tensors that torch cannot read without their values, and that cannot be pruned."""
    with path.open("rb") as file:
        for record in records:
            if record.name.endswith(".pkl"):
                file.seek(record.start)
                text = file.read(record.size)
                kinds = [kind for word, kind in _UNUSUAL.items() if word in text]
                if kinds:
                    raise InvalidArgumentError(
                        f"{path} holds {' and '.join(kinds)}, which cannot be pruned in a file: "
                        "save ordinary tensors (to_dense, dequantize), or prune the model"
                    )


def _unnamed(
    path: Path, name: str, tensor: torch.Tensor, records: Mapping[int, ArchiveRecord]
) -> Entry | None:
    """A tensor, without its name; None if it cannot be pruned and safetensors has no such dtype."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in NAMES:
        return None
    if len(tensor.shape) > MOST_DIMENSIONS:
        raise damaged(path, f"{quoted(name)} has {len(tensor.shape)} dimensions")
    storage: Any = tensor.untyped_storage()
    record = records.get(getattr(storage, "_checkpoint_offset", -1))
    if tensor.numel() == 0:
        start = 0 if record is None else record.start
        return Entry("", NAMES[tensor.dtype], tuple(tensor.shape), start, start)
    if tensor.device.type == "meta":
        raise InvalidArgumentError(
            f"{name[:80]} was saved on the meta device and has no values in {path}: load the "
            "weights before you save them"
        )
    strides = None if tensor.is_contiguous() else _strides(path, name, tensor)
    size = tensor.element_size()
    if record is None or storage.nbytes() != record.size:
        raise damaged(path, f"{quoted(name)} is outside its record, as if packed again")
    start = record.start + int(tensor.storage_offset()) * size
    stop = start + tensor.numel() * size
    if stop > record.stop:
        raise damaged(path, f"{quoted(name)} is larger than its record")
    return Entry("", NAMES[tensor.dtype], tuple(tensor.shape), start, stop, strides=strides)


def _strides(path: Path, name: str, tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides of a tensor without gaps in another memory format, such as ``channels_last``."""
    order = storage_order(tensor)
    if not tensor.permute(order).is_contiguous() or tensor.nbytes > _HELD:
        raise InvalidArgumentError(
            f"{name[:80]} in {path} has gaps between its elements, or another memory format and "
            f"more than {_HELD >> 20} MiB: save tensor.contiguous() instead"
        )
    return tuple(tensor.stride())
