"""Read a file that is one zstd frame, with distrust: never more memory than its window."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from secateurs.checkpoint.contents import StoredFile
from secateurs.checkpoint.file_blocks import Advance
from secateurs.checkpoint.file_identity import Identity, check_same
from secateurs.checkpoint.header import MalformedError, parse_stream
from secateurs.errors import FailureError

_LONGEST_HEADER = 18  # bytes
_LONGEST_BLOCK = 1 << 17  # bytes, compressed or not
_SHORTEST_BLOCK = 4  # bytes that become the longest one
_RAW, _REPEATED, _RESERVED = 0, 1, 3  # kinds of blocks
_LARGEST_WINDOW = 1 << 27  # bytes, the limit of the zstd tool too
_UNKNOWN = (1 << 64) - 1


class Frame:
    """The contents of a file that is one zstd frame.

    RFC 8878, section 3.1.1, says how a frame is divided into blocks. They are found here, not by
    the library, which ignores a frame that is cut short and what follows behind one.

    Args:
        file: the file, at its beginning.
        advance: told of every part that was read, in bytes.

    Attributes:
        size: the bytes of the contents; None if the frame does not say.

    Raises:
        MalformedError: it does not begin as a frame.
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
        source = cast(BinaryIO, self)  # of a file, the library needs no more than read
        self._stream = decompressor.stream_reader(
            source, read_size=2 * _LONGEST_BLOCK, closefd=False
        )

    def readinto(self, target: memoryview) -> None:
        """Fill ``target`` with the next bytes.

        Raises:
            MalformedError: there are fewer.
        """
        done = 0
        while done < len(target):
            got = self._more(target[done:])
            if not got:
                raise MalformedError("it holds less than its tensors need")
            done += got

    def take(self, count: int) -> bytes:
        """The next bytes, or fewer where it ends."""
        found = bytearray()
        while len(found) < count:
            part = bytearray(min(count - len(found), 8 * _LONGEST_BLOCK))
            got = self._more(memoryview(part))
            if not got:
                break
            found += part[:got]
        return bytes(found)

    def check_end(self) -> None:
        """Refuse contents that go on.

        Raises:
            MalformedError: so it is, or its checksum is another.
        """
        if self._more(memoryview(bytearray(1))):
            raise MalformedError("it holds more than its tensors")

    def read(self, _: int = -1) -> bytes:
        """The next part of the compressed frame, for the library."""
        part, self._waiting = self._waiting, b""
        if not part and not self._ended:
            part = self._block()
        if self._advance is not None:
            self._advance(len(part))
        return part

    def _more(self, target: memoryview) -> int:
        try:
            return self._stream.readinto(target)
        except zstandard.ZstdError as error:
            raise MalformedError(str(error).removeprefix("zstd decompress error: ")) from error

    def _block(self) -> bytes:
        head = _exactly(self._file, 3)
        described = int.from_bytes(head, "little")
        self._ended, kind, size = bool(described & 1), described >> 1 & 3, described >> 3
        if kind == _RESERVED or size > _LONGEST_BLOCK:
            raise MalformedError("one of its blocks is of no known kind")
        rest = _exactly(self._file, 1 if kind == _REPEATED else size)
        if self._ended:
            rest += _exactly(self._file, self._checksum)
            if self._file.read(1):
                raise MalformedError("something follows behind its frame")
        return head + rest


@contextmanager
def open_frame(
    path: Path, identity: Identity | None = None, advance: Advance | None = None
) -> Generator[Frame]:
    """Open a file that is one zstd frame.

    Args:
        path: the file.
        identity: which file it must be.
        advance: told of every part that was read, in bytes.

    Raises:
        FailureError: it cannot be read, is another file than the one that was identified, or is
            damaged; also what the body of the ``with`` finds.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from error
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
    """Read which tensors a compressed file holds, without their values.

    Raises:
        FailureError: it is damaged, or not one zstd frame that begins as safetensors do.
    """
    with open_frame(path) as frame:
        return replace(parse_stream(path, frame.take, frame.size), compressed=True)


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
        raise MalformedError(f"it needs the dictionary {known.dict_id}, which nobody has")
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
