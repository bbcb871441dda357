"""Damaged and hostile zstd streams: one line, and no more memory than a window."""

import tracemalloc
from pathlib import Path

import pytest
import torch
import zstandard
from safetensors.torch import save

import secateurs as sc
from secateurs.checkpoint import decompress_checkpoint
from secateurs.checkpoint.header import write_header

torch.manual_seed(0)
WHOLE = save({"fc.weight": torch.randn(100, 100), "fc.bias": torch.zeros(100_000)})


def packed(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**{"write_checksum": True, **options}).compress(data)


def claiming(size: int) -> bytes:
    """A header of one tensor of so many bytes, and no values."""
    return write_header([("fc.weight", "U8", (size,), 0, size)], None)


def zeros(mebibytes: int, start: bytes = b"") -> bytes:
    """A frame of few bytes that becomes many."""
    compressor = zstandard.ZstdCompressor().compressobj()
    parts = [compressor.compress(start)]
    parts += [compressor.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return b"".join([*parts, compressor.flush()])


def with_dictionary(data: bytes) -> bytes:
    content = b"\x37\xa4\x30\xec" + (7).to_bytes(4, "little")
    samples = [bytes([i % 251, i % 7, 3]) * 40 + str(i).encode() * 9 for i in range(2000)]
    trained = zstandard.train_dictionary(4096, samples, dict_id=7)
    assert trained.as_bytes()[:8] == content
    return packed(data, dict_data=trained)


def frame_of(kind: int, size: int, rest: bytes = b"") -> bytes:
    """One last block of a kind, in a frame of a small window that says no more."""
    block = (1 | kind << 1 | size << 3).to_bytes(3, "little")
    return zstandard.FRAME_HEADER + b"\x00\x00" + block + rest


GOOD = packed(WHOLE)
HOSTILE = {
    "nothing": (b"", "does not begin as one"),
    "four bytes": (GOOD[:4], "malformed|has 4 bytes"),
    "safetensors": (WHOLE, "does not begin as one"),
    "no safetensors": (packed(b"[]" * 1000), "header claims"),
    "without its end": (GOOD[:-100], "cut short"),
    "without its checksum": (GOOD[:-4], "cut short"),
    "another checksum": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "checksum"),
    "a changed byte": (GOOD[:20_000] + b"\x00\xff" + GOOD[20_002:], "damaged"),
    "a second frame": (GOOD + GOOD, "other bytes follow"),
    "an empty frame behind it": (GOOD + packed(b""), "other bytes follow"),
    "a frame to skip before it": (b"\x50\x2a\x4d\x18\x01\0\0\0x" + GOOD, "does not begin"),
    "one byte behind it": (GOOD + b"\0", "other bytes follow"),
    "a dictionary": (with_dictionary(WHOLE), "dictionary 7"),
    "less than the header says": (packed(WHOLE[:-1]), "its tensors need .* bytes, the file has"),
    "less, and no size": (packed(WHOLE[:-1], write_content_size=False), "less than its tensors"),
    "more than the header says": (packed(WHOLE + b"\0"), "belong to no tensor"),
    "more, and no size": (zeros(200, WHOLE), "more than its tensors"),
    "an endless header": (zeros(95, (95_000_000).to_bytes(8, "little")), "malformed"),
    "a header beyond the limit": (zeros(200, (1 << 60).to_bytes(8, "little")), "allows"),
    "a tensor of petabytes": (packed(claiming(1 << 50), write_content_size=False), "cannot be had"),
    "a block of no kind": (frame_of(3, 8, b"x" * 8), "no known kind"),
    "a block of megabytes": (frame_of(1, 1 << 20, b"x"), "no known kind"),
    "a window of gigabytes": (zstandard.FRAME_HEADER + b"\x00\xa0" + bytes(40), "a window of"),
    "a size of petabytes": (
        zstandard.FRAME_HEADER + b"\xc0\x00" + (1 << 50).to_bytes(8, "little") + bytes(40),
        "cannot hold",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_streams_are_one_line(tmp_path: Path, name: str) -> None:
    data, complaint = HOSTILE[name]
    path, output = tmp_path / "in.safetensors.zst", tmp_path / "out.safetensors"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(sc.FailureError, match=complaint) as caught:
            sc.load_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert peak < (400 << 20 if name == "an endless header" else 10 << 20)
    with pytest.raises(sc.FailureError, match=None if "petabytes" in name else complaint):
        decompress_checkpoint(path, output)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_places_where_a_small_stream_may_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "in.safetensors.zst"
    whole = packed(save({"fc.weight": torch.randn(3, 4), "fc.bias": torch.zeros(4)}))
    for end in (*range(0, len(whole), 9), *range(len(whole) - 9, len(whole))):
        path.write_bytes(whole[:end])
        with pytest.raises(sc.FailureError, match="damaged"):
            sc.load_checkpoint(path)
    path.write_bytes(whole)
    assert sc.load_checkpoint(path).keys() == {"fc.weight", "fc.bias"}
