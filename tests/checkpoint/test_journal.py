"""Killed anywhere while shards take their places, the same command goes on and leaves nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stored_folders import INDEX, loaded, pruned_net, shards
from stored_models import assert_same

import secateurs as sc
from secateurs._io.lock import FolderLock
from secateurs.checkpoint import prune_checkpoint
from secateurs.checkpoint.journal import LOCK, NOTE, abandoned, clear_abandoned, write_note

EVERYWHERE = Path(__file__).with_name("killed_everywhere.py")
SHARD = "model-00001-of-00002.safetensors"


def test_killed_at_every_system_call(tmp_path: Path) -> None:
    template = tmp_path / "template"
    shards(template / "in")
    (template / "empty").mkdir()
    prune_checkpoint(template / "in", template / "older", 0.9)
    outputs = ("in", "older", "empty", "new")
    command = [sys.executable, str(EVERYWHERE), str(template), "in", *outputs]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    points = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {call for _, call, *_ in points} >= {"mkdir", "rename", "replace", "unlink", ""}
    zeros = sum(int((tensor == 0).sum()) for tensor in pruned_net().values())
    for number, (output, call, whole, found, names) in enumerate(points):
        where = f"{output}, point {number} ({call}): {names}"
        assert whole and found == zeros, where
        assert not any(Path(name).name.startswith(".") for name in names), where
        shards_there = [name for name in names if name.endswith(".safetensors")]
        assert len(shards_there) == (4 if output in ("in", "older") else 6), where


def torn(folder: Path, *, committed: bool) -> tuple[str, str]:
    """A folder as a kill leaves it, and the names of the new shard and the old one."""
    shards(folder)
    new = SHARD.replace(".safetensors", ".r1.safetensors")
    shutil.copy(folder / SHARD, folder / new)
    write_note(folder, INDEX, {new: folder / new}, [folder / SHARD])
    if committed:
        text = (folder / INDEX).read_text().replace(SHARD, new)
        (folder / INDEX).write_text(text)
    return new, SHARD


@pytest.mark.parametrize("committed", [False, True])
def test_what_is_ours_and_no_index_names(tmp_path: Path, committed: bool) -> None:
    new, old = torn(tmp_path / "in", committed=committed)
    assert abandoned(tmp_path / "in") == (old if committed else new,)
    before = loaded(tmp_path / "in")
    clear_abandoned(tmp_path / "in")
    assert_same(loaded(tmp_path / "in"), before)
    names = {path.name for path in (tmp_path / "in").glob("*")}
    assert names == {INDEX, "config.json", "1_Pooling", "model-00002-of-00002.safetensors"} | {
        new if committed else old
    }


@pytest.mark.parametrize("committed", [False, True])
def test_the_leavings_of_an_input_are_not_copied(tmp_path: Path, committed: bool) -> None:
    torn(tmp_path / "in", committed=committed)
    prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    assert_same(loaded(tmp_path / "out"), pruned_net())
    assert len(list((tmp_path / "out").rglob("*"))) == 6


def test_a_file_that_somebody_has_put_there_since_stays(tmp_path: Path) -> None:
    new, _ = torn(tmp_path / "in", committed=False)
    (tmp_path / "in" / new).unlink()
    (tmp_path / "in" / new).write_bytes(b"somebody else's")
    assert not abandoned(tmp_path / "in")
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    assert (tmp_path / "in" / new).read_bytes() == b"somebody else's"
    assert not (tmp_path / "in" / NOTE).exists()


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"index": 3, "new": {}, "old": {}}',
        '{"index": "../model.safetensors.index.json", "new": {}, "old": {}}',
        '{"index": "model.safetensors.index.json", "new": {"config.json": [INODE]}, "old": {}}',
        '{"index": "model.safetensors.index.json", "new": {"../x.bin": [1, 2, 3]}, "old": {}}',
        '{"index": "model.safetensors.index.json", "new": {"x.bin": [1, 2]}, "old": {}}',
        '{"index": "model.safetensors.index.json", "new": {"x.bin": 1}, "old": []}',
    ],
)
def test_a_note_that_is_none_of_ours_removes_nothing(tmp_path: Path, note: str) -> None:
    shards(tmp_path / "in")
    found = (tmp_path / "in" / "config.json").stat()
    note = note.replace("INODE", f"{found.st_ino}, {found.st_size}, {found.st_mtime_ns}")
    (tmp_path / "in" / NOTE).write_text(note)
    assert not abandoned(tmp_path / "in")
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    assert_same(loaded(tmp_path / "in"), pruned_net())
    assert not (tmp_path / "in" / NOTE).exists() and (tmp_path / "in" / "config.json").exists()


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    with pytest.raises(sc.FailureError, match="another run is writing in"):
        lock = FolderLock(tmp_path / "in" / LOCK)
        lock.acquire()
        prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    lock.release()
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    assert_same(loaded(tmp_path / "in"), pruned_net())
