"""Read and check the directory of the zip archive that ``torch.save`` writes."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from secateurs._io.regular_files import reading, remedy_for
from secateurs._io.text import quoted, shortened
from secateurs.errors import FailureError, InvalidArgumentError

_START = b"PK\x03\x04"
_IN_DIRECTORY = b"PK\x01\x02"
_DESCRIPTOR = b"PK\x07\x08"
_BLOCK = 1 << 20  # bytes
_ENCRYPTED, _HAS_DESCRIPTOR, _UTF8 = 1, 8, 0x800
_FOLDER = 0x10


@dataclass(frozen=True)
class ArchiveRecord:
    """One record of the archive.

    Attributes:
        name: its name.
        start: the offset of its contents in the file.
        size: the size of its contents in bytes.
        checksum: that of its contents; 0 if ``torch.save`` was set not to compute it.
        checksums: the offsets of the checksum in the file.
    """

    name: str
    start: int
    size: int
    checksum: int
    checksums: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The offset after its contents."""
        return self.start + self.size


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive; ``torch.load`` decides by that."""
    with reading(path), path.open("rb") as file:
        return file.read(4) == _START


def read_records(path: Path) -> list[ArchiveRecord]:
    """List the records, and check the description of each.

    Raises:
        InvalidArgumentError: it holds code, or a machine of the other byte order wrote it.
        FailureError: it is damaged, or holds records that ``torch.save`` does not write: compressed
            or encrypted ones, two of one name, ones that overlap.
    """
    try:
        with reading(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
            _refuse_code(path, listed)
            position = archive.start_dir
            found: list[ArchiveRecord] = []
            for info in listed:
                record, position = _record(file, info, position)
                found.append(record)
            _check_ranges(found, archive.start_dir)
            check_checksums(path, (record for record in found if "/data/" not in record.name))
            _check_byte_order(path, found, file)
            return found
    except (InvalidArgumentError, FailureError):
        raise
    except Exception as error:  # zipfile does not document what a damaged directory raises
        raise damaged(path, str(error) or type(error).__name__) from error


def check_checksums(
    path: Path, records: Iterable[ArchiveRecord], advance: Callable[[int], object] | None = None
) -> None:
    """Read records of an archive and compare them with their checksums."""
    with reading(path), path.open("rb", buffering=0) as file:
        for record in records:
            if record.checksum and record.checksum != checksum(
                file, record.start, record.size, advance
            ):
                raise damaged(path, f"{quoted(record.name)} does not match its checksum")


def checksum(
    file: BinaryIO | FileIO,
    start: int,
    size: int,
    advance: Callable[[int], object] | None = None,
) -> int:
    """The CRC-32 of some bytes of a file."""
    found, left = 0, size
    file.seek(start)
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            break
        found, left = zlib.crc32(block, found), left - len(block)
        if advance is not None:
            advance(len(block))
    return found


def damaged(path: Path, why: str) -> FailureError:
    """The error for a file that is not as ``torch.save`` writes it."""
    return FailureError(
        f"cannot read {path} as a PyTorch checkpoint ({shortened(why)}): {remedy_for(path)}"
    )


def _record(file: BinaryIO, info: zipfile.ZipInfo, position: int) -> tuple[ArchiveRecord, int]:
    """Compare a record's local header with its entry in the directory, at ``position``.

    Returns:
        The record, and the position of the next entry.
    """
    name = quoted(info.filename)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        raise zipfile.BadZipFile(f"{name} is compressed, which torch.save never does")
    if info.filename.endswith("/") or info.external_attr & _FOLDER:
        raise zipfile.BadZipFile(f"{name} is marked as a folder")  # which torch does not read
    if info.compress_size != info.file_size:
        raise zipfile.BadZipFile(f"{name} has two sizes")
    file.seek(info.header_offset)
    mark, flags, method, crc, size, length, extra = struct.unpack("<4s2xHH4xI4xIHH", file.read(30))
    encoded = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    if mark != _START or file.read(length) != encoded:
        raise zipfile.BadZipFile(f"{name} has another name in the directory than before it")
    start = info.header_offset + 30 + length + extra
    checksum_at = info.header_offset + 14
    if flags & _HAS_DESCRIPTOR:  # the checksum stands after the contents
        checksum_at = start + info.file_size + 4
        file.seek(checksum_at - 4)
        mark, crc = struct.unpack("<4sI", file.read(8))
        same = mark == _DESCRIPTOR
    else:
        same = size in (info.file_size, 0xFFFFFFFF)
    if not same or (flags, method, crc) != (info.flag_bits, zipfile.ZIP_STORED, info.CRC):
        raise zipfile.BadZipFile(f"{name} is described in two ways")
    file.seek(position)
    central = file.read(46)
    if central[:4] != _IN_DIRECTORY:
        raise zipfile.BadZipFile("its directory points elsewhere")
    checksums = (position + 16, checksum_at)
    record = ArchiveRecord(info.filename, start, info.file_size, info.CRC, checksums)
    return record, position + 46 + sum(struct.unpack("<HHH", central[28:34]))


def _refuse_code(path: Path, listed: list[zipfile.ZipInfo]) -> None:
    if any(info.filename.endswith("/constants.pkl") for info in listed):
        raise InvalidArgumentError(
            f"{path} is a TorchScript archive, which contains code, and was not loaded; save "
            "model.state_dict() as safetensors, then give that"
        )


def _check_ranges(records: list[ArchiveRecord], end: int) -> None:
    names: set[str] = set()
    position = 0
    for record in sorted(records, key=lambda one: (one.start, one.stop)):
        if record.name in names:
            raise zipfile.BadZipFile(f"{quoted(record.name)} is there twice")
        names.add(record.name)
        if record.start < position or record.stop > end:
            raise zipfile.BadZipFile(f"{quoted(record.name)} overlaps another part of the file")
        position = record.stop


def _check_byte_order(path: Path, records: list[ArchiveRecord], file: BinaryIO) -> None:
    for record in records:
        if record.name.endswith("/byteorder") and record.size < 16:
            file.seek(record.start)
            if file.read(record.size) != b"little":
                raise InvalidArgumentError(
                    f"{path} was saved on a machine of the other byte order: save it again"
                )
