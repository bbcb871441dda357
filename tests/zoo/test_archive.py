"""The zip of torch.save: what it does not write is damage, told before it is unpacked."""

import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import secateurs as sc
from secateurs.checkpoint import decide_pruning, plan_pruning, prune_checkpoint
from secateurs.zoo.archive import read_records
from secateurs.zoo.weights_file import read_weights

NAME = "in/data/0"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save({"a.weight": torch.randn(8, 8), "b.weight": torch.randn(4, 4)}, tmp_path / "in.pt")
    return tmp_path / "in.pt"


Change = Callable[[str, bytes], tuple[str, bytes] | None]


def again(path: Path, change: Change) -> None:
    """Write the archive anew, as an ordinary tool for zip files does."""
    with zipfile.ZipFile(path) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in records:
            changed = change(name, data)
            if changed is not None:
                new.writestr(*changed)


def patched(path: Path, place: Callable[[bytes], int], data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    start = place(bytes(whole))
    whole[start : start + len(data)] = data
    path.write_bytes(whole)


def of_values(path: Path) -> int:
    return next(record.start for record in read_records(path) if record.name == NAME)


def in_directory(whole: bytes) -> int:
    """Where the directory describes the record."""
    return whole.rindex(NAME.encode()) - 46


def refused(path: Path, complaint: str) -> None:
    output = path.with_name("out.pt")
    for read in (read_weights, lambda source: prune_checkpoint(source, output, 0.5)):
        with pytest.raises(sc.FailureError, match=complaint) as caught:
            read(path)
        assert "damaged" in str(caught.value) and str(caught.value).isprintable()
        assert len(str(caught.value)) < 300 + 2 * len(str(path))
    assert not output.exists()


REWRITTEN = {
    "cut short": (lambda n, d: (n, d[:10] if n == NAME else d), "match|outside its record"),
    "longer": (lambda n, d: (n, d + b"1234" if n == NAME else d), "match|outside its record"),
    "renamed": (lambda n, d: (n.replace("data/0", "data/7"), d), "data/0"),
    "left out": (lambda n, d: None if n == NAME else (n, d), "data/0"),
}


@pytest.mark.parametrize("what", REWRITTEN)
def test_a_record_that_is(saved: Path, what: str) -> None:
    change, complaint = REWRITTEN[what]
    again(saved, change)
    refused(saved, complaint)


PATCHED = {
    "another name before it": (lambda w: w.index(NAME.encode()) + 8, b"9", "another name"),
    "another name in the directory": (lambda w: w.rindex(NAME.encode()) + 8, b"9", "another name"),
    "a mark of a folder": (lambda w: in_directory(w) + 38, b"\x10", "marked as a folder"),
    "a mark of encryption": (lambda w: in_directory(w) + 8, b"\x09", "compressed|two ways"),
    "another way of compression": (lambda w: in_directory(w) + 10, b"\x0c", "is compressed"),
    "another checksum": (lambda w: in_directory(w) + 16, b"\xff\xfe\xfd\xfc", "two ways"),
    "another size": (lambda w: in_directory(w) + 24, struct.pack("<I", 999), "two sizes"),
    "another place": (lambda w: in_directory(w) + 42, struct.pack("<I", 1), "another name"),
}


@pytest.mark.parametrize("what", PATCHED)
def test_a_record_with(saved: Path, what: str) -> None:
    place, data, complaint = PATCHED[what]
    patched(saved, place, data)
    refused(saved, complaint)


def test_values_that_have_changed_are_not_mended(saved: Path) -> None:
    """The checksum of the result would be right, and the values wrong."""
    patched(saved, lambda _: of_values(saved) + 5, b"\xaa")
    refused(saved, "'in/data/0' does not match its checksum")
    with pytest.raises(sc.FailureError, match="checksum"):
        decide_pruning(plan_pruning(saved, 0.5))


def test_a_file_without_checksums_is_read_and_gets_none(saved: Path) -> None:
    before = torch.serialization.get_crc32_options()
    state = torch.load(saved, weights_only=True)
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(state, saved)
    finally:
        torch.serialization.set_crc32_options(before)
    output = saved.with_name("out.pt")
    prune_checkpoint(saved, output, 0.5)
    assert not any(record.checksum for record in read_records(output))
    pruned = torch.load(output, weights_only=True)
    assert sum(int((t == 0).sum()) for t in pruned.values()) == 40
    assert read_weights(saved).keys() == state.keys()


def test_little_that_unpacks_to_much_is_refused_before_it_is(saved: Path) -> None:
    """A few hundred kilobytes took gigabytes before they were refused."""
    bomb = saved.with_name("bomb.pt")
    with (
        zipfile.ZipFile(saved) as old,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for info in old.infolist():
            with new.open(info.filename, "w") as record:
                pieces = [bytes(1 << 20)] * 150 if info.filename == NAME else [old.read(info)]
                record.writelines(pieces)
    assert bomb.stat().st_size < 1_000_000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(bomb, "is compressed, which torch.save never does")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 75_000


def test_two_records_of_one_name(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(NAME, bytes(256))
    refused(saved, "is there twice|overlaps")


def test_the_advice_of_torch_is_not_passed_on(saved: Path) -> None:
    """It says to load the file again in the way that runs code."""
    again(saved, lambda n, d: (n, b"\x80\x02}q" if n.endswith(".pkl") else d))
    with pytest.raises(sc.FailureError) as caught:
        read_weights(saved)
    assert "weights_only" not in str(caught.value) and "http" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
def test_a_pickle_that_asks_for_memory(saved: Path, legacy: bool) -> None:
    """Of 30 bytes, torch makes gigabytes: `bytearray(n)` is no code to it."""
    asks = b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x10\x85R."
    if legacy:
        torch.save({}, saved, _use_new_zipfile_serialization=False)
        saved.write_bytes(saved.read_bytes().replace(b"\x80\x02}q\x00.", asks))
    else:
        again(saved, lambda n, d: (n, asks if n.endswith(".pkl") else d))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_weights, lambda path: plan_pruning(path, 0.5)):
        with pytest.raises(sc.InvalidArgumentError, match="holds a bytearray"):
            read(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 75_000


def test_an_archive_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    """Sizes and places then stand elsewhere in the directory. The file has a hole for values."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        state = {"a.weight": torch.empty(1100, 1000, 1000), "b.weight": torch.empty(10, 10)}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(state, tmp_path / "in.pt")
    plan = plan_pruning(tmp_path / "in.pt", 0.5)
    first, second = (weight.entry for weight in plan.weights)
    assert first.nbytes == 4_400_000_000 and second.start > first.stop
    records = {record.name: record for record in read_records(tmp_path / "in.pt")}
    assert records["in/data/0"].start == first.start and records["in/data/1"].start == second.start
