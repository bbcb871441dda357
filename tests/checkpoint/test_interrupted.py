"""Whatever happens meanwhile: the output is the old one or the new one, the input untouched."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stored_folders import contents, loaded, pruned_net, shards
from stored_models import assert_same, to_file

import secateurs as sc
from secateurs.checkpoint import file_blocks, prune_checkpoint, publication


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of many blocks."""
    torch.manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(600, 1000) for i in range(3)}
    return to_file(tmp_path / "in.safetensors", state, {"format": "pt"})


@contextmanager
def largest_file(size: int) -> Generator[None]:
    """Writing more into one file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def killed(source: Path, output: Path, where: str) -> None:
    """Prune in a process that is killed while it writes, or before it renames the first file."""
    child = os.fork()
    if child == 0:
        try:
            prune_and_die(source, output, where)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def prune_and_die(source: Path, output: Path, where: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    write, left = file_blocks.write_all, [1, 2, 3]

    def write_and_die(*arguments: Any) -> None:
        write(*arguments)
        left.pop()
        if not left:
            die()

    if where == "writing":
        file_blocks.write_all = write_and_die
    else:
        Path.replace = Path.rename = die  # type: ignore[method-assign]
    prune_checkpoint(source, output, 0.5)


@pytest.mark.parametrize("where", ["writing", "renaming"])
@pytest.mark.parametrize("in_place", [False, True], ids=["elsewhere", "in-place"])
def test_a_killed_process_leaves_the_old_file(
    tmp_path: Path, large: Path, where: str, in_place: bool
) -> None:
    before = large.read_bytes()
    output = large if in_place else tmp_path / "out.safetensors"
    killed(large, output, where)
    assert large.read_bytes() == before
    assert in_place or not output.exists()
    left = [path.name for path in tmp_path.glob(".*")]
    assert len(left) == 1 and left[0].endswith(".tmp")
    prune_checkpoint(large, output, 0.5)
    assert not list(tmp_path.glob(".*")), "the next run clears up"


@pytest.mark.parametrize("where", ["writing", "renaming"])
@pytest.mark.parametrize("in_place", [False, True], ids=["elsewhere", "in-place"])
def test_a_killed_process_leaves_the_old_folder(tmp_path: Path, where: str, in_place: bool) -> None:
    torch.manual_seed(0)
    shards(tmp_path / "in")
    before = loaded(tmp_path / "in")
    output = tmp_path / ("in" if in_place else "out")
    killed(tmp_path / "in", output, where)
    assert_same(loaded(tmp_path / "in"), before)
    assert in_place or not output.exists()
    prune_checkpoint(tmp_path / "in", output, 0.5)
    assert_same(loaded(output), pruned_net())
    assert not list(tmp_path.glob(".*")) and not list(output.glob(".*"))


@pytest.mark.parametrize("compress", [False, True])
def test_a_full_disk(tmp_path: Path, large: Path, compress: bool) -> None:
    before = contents(tmp_path)
    name = "out.safetensors.zst" if compress else "out.safetensors"
    outputs = [tmp_path / name, tmp_path / "new" / name, *([] if compress else [large])]
    for output in outputs:
        with largest_file(1 << 20), pytest.raises(sc.FailureError, match="disk is full") as caught:
            prune_checkpoint(large, output, 0.5, compress=compress)
        assert "\n" not in str(caught.value) and output.name in str(caught.value)
        assert contents(tmp_path) == before
        assert not (tmp_path / "new").exists()


def test_a_full_disk_in_the_middle_of_a_folder(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    before = contents(tmp_path)
    sizes = sorted(path.stat().st_size for path in (tmp_path / "in").glob("*.safetensors"))
    for output in ("in", "out"):
        limit = largest_file(sizes[-1] - 1)
        with limit, pytest.raises(sc.FailureError, match="disk is full"):
            prune_checkpoint(tmp_path / "in", tmp_path / output, 0.5)
        assert contents(tmp_path) == before


def test_what_will_not_fit_is_refused_before_writing(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = publication.shutil.disk_usage(tmp_path)
    free = usage._replace(free=large.stat().st_size - 1)
    monkeypatch.setattr(publication.shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr(file_blocks, "write_all", lambda *_: pytest.fail("wrote"))
    with pytest.raises(sc.FailureError, match=r"bytes are needed and .* are free"):
        prune_checkpoint(large, tmp_path / "out.safetensors", 0.5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, large: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(sc.FailureError, match="cannot write"):
        prune_checkpoint(large, tmp_path / "locked" / "out.safetensors", 0.5)


def test_an_output_under_a_file(tmp_path: Path, large: Path) -> None:
    with pytest.raises(sc.FailureError, match="cannot write"):
        prune_checkpoint(large, large / "out.safetensors", 0.5)


@pytest.mark.parametrize("cut", [1, 1 << 20, 7_000_000])
def test_a_file_cut_short_meanwhile(
    tmp_path: Path, large: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = file_blocks.write_all
    size = large.stat().st_size

    def cutting(*arguments) -> None:
        write(*arguments)
        os.truncate(large, size - cut)

    monkeypatch.setattr(file_blocks, "write_all", cutting)
    with pytest.raises(sc.FailureError, match="was longer a moment ago"):
        prune_checkpoint(large, tmp_path / "out.safetensors", 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_the_leftover_of_a_process_that_still_runs_stays(tmp_path: Path, large: Path) -> None:
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = tmp_path / f".out.safetensors.{running.pid}.tmp"
    theirs.write_text("")
    other = tmp_path / ".out.safetensors.notes.tmp"
    other.write_text("")
    prune_checkpoint(large, tmp_path / "out.safetensors", 0.5)
    assert theirs.exists() and other.exists()
    assert running.stdin is not None
    running.communicate(b"\n")
    prune_checkpoint(large, tmp_path / "out.safetensors", 0.5)
    assert not theirs.exists() and other.exists()
    assert load_file(tmp_path / "out.safetensors")
