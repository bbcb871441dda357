"""Headers that lie: always one of our errors, in bounded time and memory."""

import io
import json
import random
import resource
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save_file
from stored_models import DTYPES, Net

import secateurs as sc
from secateurs.checkpoint.contents import DTYPES as KNOWN
from secateurs.checkpoint.header import (
    MalformedError,
    parse_header,
    read_header,
    write_header,
)


def file_with(tmp_path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "file.safetensors"
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def one(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


LIES = {
    "is empty": (b"", b"", 0, "not JSON"),
    "claims more than the file": ({}, b"", 100, "claims 100 bytes, the file has"),
    "claims more than the format": ({}, b"", 2**63, "the format allows"),
    "is no JSON": (b"{nonsense}", b"", None, "not JSON"),
    "is no object": (b"[1, 2]", b"", None, "is not an object"),
    "is no unicode": (b'{"\xff": 1}', b"", None, "byte 2 is no UTF-8"),
    "has half a surrogate": (b'{"\\ud800": 1}', b"", None, "half a character"),
    "nests": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", None, "nested too deeply"),
    "has many parts": (b'{"a":[' + b"[]," * 2_000_001 + b"[]]}", b"", None, "more than 4,000,000"),
    "has a long number": (b'{"a":' + b"9" * 1_000_000 + b"}", b"", None, "thousands of digits"),
    "has NaN": (b'{"a": NaN}', b"", None, "holds NaN"),
    "names twice": (b'{"a": 1, "a": 2}', b"", None, "twice"),
    "has metadata of numbers": ({"__metadata__": {"a": 1}}, b"", None, "table of strings"),
    "has no metadata but a list": ({"__metadata__": []}, b"", None, "table of strings"),
    "does not describe": ({"a": 3}, b"", None, "does not describe"),
    "has an unknown dtype": ({"a": one(dtype="F7")}, bytes(8), None, "unknown dtype 'F7'"),
    "has no dtype": ({"a": one(dtype=None)}, bytes(8), None, "unknown dtype"),
    "has no shape": ({"a": one(shape="2")}, bytes(8), None, "no shape"),
    "has a negative size": ({"a": one(shape=[-2])}, bytes(8), None, "no shape"),
    "has half a size": ({"a": one(shape=[2.0])}, bytes(8), None, "no shape"),
    "has a true size": ({"a": one(shape=[True, 2])}, bytes(8), None, "no shape"),
    "has three offsets": ({"a": one(data_offsets=[0, 4, 8])}, bytes(8), None, "no offsets"),
    "has offsets backwards": ({"a": one(data_offsets=[8, 0])}, bytes(8), None, "has -8 bytes"),
    "has another size": ({"a": one(shape=[3])}, bytes(8), None, "its shape needs 12"),
    "is larger than any file": (
        {"a": one(shape=[2**40, 2**40])}, bytes(8), None, "larger than any file"
    ),
    "hides its size": (
        {"a": one(shape=[2**62] * 1000 + [0])}, bytes(8), None, "larger than any file"
    ),
    "hides its size behind a zero": (
        {"a": one(shape=[0, 2**62, 2**62], data_offsets=[0, 0])}, b"", None, "larger than any file"
    ),
    "has many dimensions": ({"a": one(shape=[1] * 70 + [2])}, bytes(8), None, "larger than any"),
    "has a long name": ({"x" * 100_000: one()}, bytes(8), None, "name has 100,000 characters"),
    "has a long dtype": ({"a": one(dtype="F" * 100_000)}, bytes(8), None, "unknown dtype 'FFFF"),
    "has an infinity": (b'{"a": 1e999}', b"", None, "beyond all bounds"),
    "is in UTF-16": ('{"a": 1}'.encode("utf-16-le"), b"", None, "not JSON"),
    "has half a surrogate inside": (
        {"__metadata__": {"a": "\ud800"}}, b"", None, "half a character"
    ),
    "has half a byte": (
        {"a": one(dtype="F4", shape=[3], data_offsets=[0, 1])}, bytes(1), None, "needs 1.5"
    ),
    "overlaps": (
        {"a": one(), "b": one(data_offsets=[4, 12])}, bytes(12), None, "'b' overlaps another"
    ),
    "is the same twice": ({"a": one(), "b": one()}, bytes(8), None, "'b' overlaps another"),
    "has a gap": ({"a": one(data_offsets=[8, 16])}, bytes(16), None, "'a' comes after a gap"),
    "is cut short": ({"a": one()}, bytes(7), None, "need .* bytes, the file has"),
    "has more data": ({"a": one()}, bytes(9), None, "1 of its bytes belong to no tensor"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_header_that_lies(tmp_path: Path, what: str) -> None:
    header, data, length, complaint = LIES[what]
    path = file_with(tmp_path, header, data, length)
    with pytest.raises(sc.FailureError, match=complaint) as caught:
        read_header(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("size", range(8))
def test_files_shorter_than_a_length(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(sc.FailureError, match=f"it has {size} bytes"):
        read_header(path)


def test_what_the_library_writes_is_read_and_written_the_same(tmp_path: Path) -> None:
    state = Net(DTYPES[:3]).state_dict() | {
        f"t{i}": torch.zeros(2, 3, dtype=dtype) for i, dtype in enumerate(KNOWN.values())
    }
    path = tmp_path / "file.safetensors"
    save_file(state, path, {"format": "pt", "words": 'ü "quoted" \n'})
    stored = read_header(path)
    assert stored.metadata == {"format": "pt", "words": 'ü "quoted" \n'}
    assert {e.name: e.shape for e in stored.entries} == {
        n: tuple(t.shape) for n, t in state.items()
    }
    origin = stored.entries[0].start
    described = [
        (e.name, e.dtype, e.shape, e.start - origin, e.stop - origin) for e in stored.entries
    ]
    again = write_header(described, None)
    content = json.loads(path.read_bytes()[8:origin])
    del content["__metadata__"]
    assert json.loads(again[8:]) == content and len(again) % 8 == 0


def mutated(rng: random.Random, whole: bytes, words: list[bytes]) -> bytes:
    """The file with one to four changes, most of them in the header."""
    data = bytearray(whole)
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(min(len(data), header) or 1)
        kind = rng.randrange(7)
        if kind == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[place : place + rng.randint(1, 20)]
        elif kind == 2:
            data[place:place] = rng.choice(words)
        elif kind == 3:
            del data[rng.randrange(len(data) + 1) :]
        elif kind == 4:
            data[:8] = rng.choice((rng.randrange(2**64), rng.randrange(2000))).to_bytes(8, "little")
        elif kind == 5:
            other = rng.randrange(min(len(data), header) or 1)
            data[place : place + 8] = data[other : other + 8]
        else:
            digits = [i for i in range(8, min(len(data), header)) if 48 <= data[i] < 58]
            if digits:
                data[rng.choice(digits)] = 48 + rng.randrange(10)
    return bytes(data)


WORDS = [
    b"[", b"]", b"{", b"}", b",", b":", b'"', b"-1", b"99999999999999999999", b"1e9", b"null",
    b"true", b"NaN", b"\\ud800", b"\x00", b"\xff", b'"F64"', b'"__metadata__":{},', b"[[[[[[[[",
]  # fmt: skip


def test_ten_thousand_mutated_files(tmp_path: Path) -> None:
    """Either what the format's own reader reads as well, or one of our errors."""
    seed = tmp_path / "seed.safetensors"
    save_file(Net((torch.float16,)).state_dict(), seed, {"format": "pt", "a": "b"})
    whole = seed.read_bytes()
    rng = random.Random(0)
    read, refused = 0, 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10_000):
        data = mutated(rng, whole, WORDS)
        try:
            stored = parse_header(Path("file"), io.BytesIO(data).read, len(data))
        except MalformedError as error:
            assert "\n" not in str(error) and len(str(error)) < 300
            refused += 1
            continue
        read += 1
        try:
            assert sorted(name for name, _ in deserialize(data)) == sorted(
                e.name for e in stored.entries
            )
        except SafetensorError as error:
            # Of surplus fields, and of control characters in names, the format's own reader
            # thinks otherwise.
            assert "invalid JSON" in str(error), error
    assert read > 100 and refused > 5000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 64 * 1024


def test_headers_stay_within_memory() -> None:
    """A twentieth of the parts that are allowed, which take most memory for their number."""
    text = b'{"a":[' + b"[]," * 95_000 + b"0]}"
    file = io.BytesIO(len(text).to_bytes(8, "little") + text)
    tracemalloc.start()
    with pytest.raises(MalformedError, match="does not describe"):
        parse_header(Path("x"), file.read, len(text) + 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15e6
