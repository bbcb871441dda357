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

from secateurs._io.regular_files import read_if_there
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.provenance import tensors_sha256
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.layer_sites import LayerSite
from secateurs.repair.lockstep import Site
from secateurs.repair.repair_options import RepairOptions
from secateurs.results.durable import replace_files, write_failure

_HEADER = struct.Struct(">QI")  # length and checksum of a part


def pass_key(what: object, options: RepairOptions, tensors: Iterable[Tensor]) -> str:
    """A text that identifies a pass: its steps, its options, and a checksum of these tensors."""
    digest = tensors_sha256({str(number): one for number, one in enumerate(tensors)})
    return f"{what} {replace(options, state=None)} {digest}"


def check_key(path: object, found: object, wanted: str) -> None:
    """Refuse the file of another pass.

    Raises:
        InvalidArgumentError: its key is another.
    """
    if found != wanted:
        raise InvalidArgumentError(
            f"{path} belongs to another repair (other images, options or weights): remove it, or "
            "name another file"
        )


class LayerFile:
    """A file of the outcomes of layers, to which each is added when it is finished.

    Each outcome has a header of its length and checksum. If a kill or a power cut left the last
    one incomplete, that layer is repaired again.

    Args:
        path: the file.
        key: see `pass_key`.

    Raises:
        InvalidArgumentError: the file is of another pass.
        FailureError: it cannot be read or written, or is no such file.
    """

    def __init__(self, path: str | os.PathLike[str], key: str):
        self._path = Path(path)
        content = read_if_there(path)
        if content is None:
            content = _part({"key": key})
            replace_files({self._path: content})
        parts = list(_parts(content))
        if not parts or "key" not in parts[0][0]:
            raise FailureError(
                f"{path} is damaged, or not the state of a repair: remove it, or name another file"
            )
        check_key(path, parts[0][0]["key"], key)
        self._outcomes = {one["name"]: one for one, _ in parts[1:]}
        self._end = parts[-1][1]

    def resumable(self, site: LayerSite) -> Site:
        """A site that saves its outcome; one that does nothing if an earlier run finished it."""
        finished = site.name in self._outcomes
        if finished:
            site.put(self._outcomes[site.name])
        return _ResumableSite(site, self, finished=finished)

    def save(self, site: LayerSite) -> None:
        """Add the outcome of a site."""
        try:
            with self._path.open("r+b") as file:
                file.seek(self._end)
                file.truncate()
                file.write(_part(site.outcome() | {"name": site.name}))
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        except OSError as error:
            raise write_failure(self._path, error) from error


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
        yield torch.load(io.BytesIO(content[start:end]), weights_only=True), end


class _ResumableSite:
    """A layer whose outcome is saved, or was by an earlier run: then nothing is done."""

    def __init__(self, site: LayerSite, file: LayerFile, *, finished: bool):
        self.name, self._site, self._file, self._finished = site.name, site, file, finished

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        if not self._finished:
            self._site.add(call, dense)

    def finish(self) -> None:
        if not self._finished:
            self._site.finish()
            self._file.save(self._site)
