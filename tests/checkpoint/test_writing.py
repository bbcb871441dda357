"""Writes of large files do not fill the page cache."""

import os
from pathlib import Path

import pytest

from secateurs.checkpoint.file_blocks import write_all

needs_fadvise = pytest.mark.skipif(
    not hasattr(os, "posix_fadvise"), reason="this system takes no advice about files"
)


@needs_fadvise
@pytest.mark.parametrize("size", [1, 30, 64, 100, 300])
def test_full_windows_are_let_go_and_what_is_behind_them_is_not(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int]] = []

    def note(_: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        advised.append((start, start + length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    data = bytes(range(256)) * 4
    written, so_far = bytearray(), 0
    with (tmp_path / "file").open("wb", buffering=0) as file:
        while written != data:
            part = data[len(written) : len(written) + size]
            write_all(file, len(written), memoryview(part), window=64)
            written += part
            # Nothing but what is written, in full windows.
            assert all(stop <= len(written) and stop % 64 == 0 for _, stop in advised)
            so_far = max((stop for _, stop in advised), default=0)
            assert so_far == len(written) // 64 * 64
    assert (tmp_path / "file").read_bytes() == data
    # A window is named when it is full, to be written, and again when the disk has had time.
    for window in range(0, len(data) - 2 * 64, 64):
        named = [start for start, stop in advised if start <= window and window + 64 <= stop]
        assert len(named) >= (2 if size <= 64 else 1)


@needs_fadvise
def test_small_files_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("asked to drop a small file"))
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all(file, 0, memoryview(bytes(1000)))
        write_all(file, 500, memoryview(bytes(1000)))
    assert (tmp_path / "file").stat().st_size == 1500


def test_a_system_without_advice_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all(file, 0, memoryview(b"secateurs" * 10), window=8)
    assert (tmp_path / "file").read_bytes() == b"secateurs" * 10
