"""Read a file that is one zstd frame: it is checked, and needs no more memory than its window."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from secateurs._io.regular_files import reading
from secateurs.checkpoint.contents import StoredFile
from secateurs.checkpoint.file_blocks import Advance
from secateurs.checkpoint.file_identity import Identity, check_same
from secateurs.checkpoint.header import MalformedError, parse_header
from secateurs.errors import FailureError

_LONGEST_HEADER = 18  # bytes
_LONGEST_BLOCK = 1 << 17  # bytes, compressed or not
_SHORTEST_BLOCK = 4  # bytes, which may be decompressed into the longest block
_REPEATED, _RESERVED = 1, 3  # types of blocks
_LARGEST_WINDOW = 1 << 27  # bytes, the limit of the zstd tool too
_UNKNOWN = (1 << 64) - 1


class Frame:
    """The contents of a file that is one zstd frame.

    RFC 8878, section 3.1.1, defines the blocks of a frame. They are found here, not by the library,
    which does not report that a frame is cut short, or that bytes follow it.

    Attributes:
        size: the size of the contents in bytes; None if the frame does not have it.

    Raises:
        MalformedError: it does not begin with the header of a frame.
    """

    def __init__(self, file: BinaryIO, advance: Advance | None = None):
        self._file, self._advance = file, advance
        self._waiting, known = _header(file)
        self._checksum = 4 if known.has_checksum else 0
        self._ended = False
        self.size = None if known.content_size == _UNKNOWN else known.content_size
        least = file.seek(0, 2)
        file.seek(len(self._waiting))
        if self.size is not None and self.size > least // _SHORTEST_BLOCK * _LONGEST_BLOCK:
            raise MalformedError(f"{least:,} bytes cannot hold the {self.size:,} that it claims")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        source = cast(BinaryIO, self)  # of a file's methods, the library calls only read
        self._stream = decompressor.stream_reader(
            source, read_size=2 * _LONGEST_BLOCK, closefd=False
        )

    def readinto(self, target: memoryview) -> None:
        """Fill ``target`` with the next bytes."""
        if self._fill(target) < len(target):
            raise MalformedError("it holds less than its tensors need")

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, or fewer at the end."""
        found = memoryview(bytearray(count))
        return bytes(found[: self._fill(found)])

    def check_end(self) -> None:
        """Refuse contents that have more bytes."""
        if self.take(1):
            raise MalformedError("it holds more than its tensors")

    def read(self, _: int = -1) -> bytes:
        """The next bytes of the compressed frame: the library calls this."""
        found, self._waiting = self._waiting, b""
        if not found and not self._ended:
            found = self._block()
        if self._advance is not None:
            self._advance(len(found))
        return found

    def _fill(self, target: memoryview) -> int:
        """Fill ``target`` as far as there are bytes, and return how many there were."""
        done = 0
        try:
            while done < len(target) and (got := self._stream.readinto(target[done:])):
                done += got
            return done
        except zstandard.ZstdError as error:
            raise MalformedError(str(error).removeprefix("zstd decompress error: ")) from error

    def _block(self) -> bytes:
        head = _exactly(self._file, 3)
        bits = int.from_bytes(head, "little")
        self._ended, kind, size = bool(bits & 1), bits >> 1 & 3, bits >> 3
        if kind == _RESERVED or size > _LONGEST_BLOCK:
            raise MalformedError("one of its blocks is of no known kind")
        rest = _exactly(self._file, 1 if kind == _REPEATED else size)
        if self._ended:
            rest += _exactly(self._file, self._checksum)
            if self._file.read(1):
                raise MalformedError("other bytes follow its frame")
        return head + rest


@contextmanager
def open_frame(
    path: Path, identity: Identity | None = None, advance: Advance | None = None
) -> Generator[Frame]:
    """Open a file that is one zstd frame.

    Raises:
        FailureError: it cannot be read, has another identity, or is damaged; also if the body of
            the ``with`` raises a `MalformedError`.
    """
    with reading(path):
        file = path.open("rb")
    with file:
        check_same(path, file.fileno(), identity)
        try:
            yield Frame(file, advance)
        except MalformedError as error:
            raise FailureError(
                f"cannot read {path} as a zstd stream of safetensors: {error}; it is damaged or of "
                "another format, get the file again"
            ) from error


def read_compressed(path: Path) -> StoredFile:
    """Read the header of a compressed file.

    Raises:
        FailureError: it is damaged, or is not one zstd frame of safetensors.
    """
    with open_frame(path) as frame:
        return replace(parse_header(path, frame.take, frame.size), compressed=True)


def _header(file: BinaryIO) -> tuple[bytes, zstandard.FrameParameters]:
    start = file.read(_LONGEST_HEADER)
    if not start.startswith(zstandard.FRAME_HEADER):
        raise MalformedError("it does not begin as one")
    try:
        known = zstandard.get_frame_parameters(start)
        length = zstandard.frame_header_size(start)
    except zstandard.ZstdError as error:
        raise MalformedError("its first bytes are malformed") from error
    if len(start) < length:
        raise MalformedError(f"it has {len(start)} bytes")
    if known.dict_id:
        raise MalformedError(f"it needs the dictionary {known.dict_id}, which it does not hold")
    if known.window_size > _LARGEST_WINDOW:
        raise MalformedError(f"it needs a window of {known.window_size:,} bytes of memory")
    return start[:length], known


def _exactly(file: BinaryIO, count: int) -> bytes:
    try:
        found = file.read(count)
    except OSError as error:
        raise MalformedError(error.strerror or str(error)) from error
    if len(found) < count:
        raise MalformedError("it is cut short")
    return found
