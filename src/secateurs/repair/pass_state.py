"""The file in which a pass of a repair saves its progress, to go on after an interruption."""

import io
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from secateurs._io.durable import replace_files, write_failure
from secateurs._io.regular_files import read_if_there
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.provenance import tensors_sha256
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.layer_sites import LayerSite
from secateurs.repair.repair_options import RepairOptions

_HEADER = struct.Struct(">QI")  # length and checksum of a part


def pass_key(what: object, options: RepairOptions, tensors: Iterable[Tensor]) -> str:
    """A text that identifies a pass: its steps, its options, and a checksum of these tensors."""
    digest = tensors_sha256({str(number): one for number, one in enumerate(tensors)})
    return f"{what} {replace(options, state=None)} {digest}"


class PassFile:
    """A file of what a pass has found, such as the outcomes of its layers.

    Each part has a header of its length and checksum. If a kill or a power cut left the last one
    incomplete, it is left out.

    Args:
        path: the file; made if it does not exist.
        key: see `pass_key`.

    Attributes:
        parts: what is in the file, in the order in which it was added.

    Raises:
        InvalidArgumentError: the file is of another pass.
        FailureError: it cannot be read or written, or is no such file.
    """

    def __init__(self, path: str | os.PathLike[str], key: str):
        self._path, self._head = Path(path), _part({"key": key})
        content = read_if_there(path)
        if content is None:
            content = self._head
            replace_files({self._path: content})
        parts = list(_parts(content))
        if not parts or "key" not in parts[0][0]:
            raise FailureError(
                f"{path} is damaged, or not the state of a repair: remove it, or name another file"
            )
        if parts[0][0]["key"] != key:
            raise InvalidArgumentError(
                f"{path} belongs to another repair (other images, options or weights): remove it, "
                "or name another file"
            )
        self.parts = [one for one, _ in parts[1:]]
        self._end = parts[-1][1]

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a part."""
        try:
            with self._path.open("r+b") as file:
                file.seek(self._end)
                file.truncate()
                file.write(_part(values))
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        except OSError as error:
            raise write_failure(self._path, error) from error

    def replace(self, values: Mapping[str, Any]) -> None:
        """Replace all parts by one."""
        replace_files({self._path: self._head + _part(values)})


def _part(values: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(values, file)
    content = file.getvalue()
    return _HEADER.pack(len(content), crc32(content)) + content


def _parts(content: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """The values in each part, up to the first incomplete one, and the offset of its end."""
    end = 0
    while end + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, end)
        start, end = end + _HEADER.size, end + _HEADER.size + length
        if crc32(content[start:end]) != checksum or end > len(content):
            return
        part = io.BytesIO(content[start:end])
        yield torch.load(part, map_location="cpu", weights_only=True), end


class ResumableSite:
    """A layer whose outcome is saved, or was by an earlier run: then nothing is done.

    Args:
        site: the layer.
        file: where its outcome is saved.
    """

    def __init__(self, site: LayerSite, file: PassFile):
        self.name, self._site, self._file = site.name, site, file
        found = [one for one in file.parts if one["name"] == site.name]
        if found:
            site.put(found[-1])
        self._finished = bool(found)

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        """Add the inputs and outputs of one batch."""
        if not self._finished:
            self._site.add(call, dense)

    def finish(self) -> None:
        """Repair the layer, and save its outcome."""
        if not self._finished:
            self._site.finish()
            self._file.add(self._site.outcome() | {"name": self.name})
