"""An input that another program writes to or replaces meanwhile gives no result."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stored_folders import INDEX, contents, shards
from stored_models import Net, to_file

import secateurs as sc
from secateurs.checkpoint import (
    decide_pruning,
    decompress_checkpoint,
    plan_pruning,
    prune_checkpoint,
    weight_files,
    write_pruned,
)
from secateurs.checkpoint.file_identity import check_unchanged, identify

COMPLAINT = "changed while it was read: another program writes to it"


def by_rename(path: Path) -> None:
    """As safetensors and careful programs save."""
    new = path.with_name("new.tmp")
    new.write_bytes(path.read_bytes()[:-1] + b"x")
    new.replace(path)


def in_place(path: Path) -> None:
    """As ``torch.save`` does: the same file, of the same size."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")


def with_the_old_date(path: Path) -> None:
    """As ``cp -p`` and ``rsync --times`` do."""
    before = path.stat()
    in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def there_and_back(path: Path) -> None:
    """Another file had the name for a while."""
    path.rename(path.with_name("aside"))
    path.with_name("aside").rename(path)


def gone(path: Path) -> None:
    path.unlink()


CHANGES = [by_rename, in_place, with_the_old_date, there_and_back, gone]


def saved(path: Path) -> Path:
    if path.suffix == ".safetensors":
        return to_file(path, Net().state_dict())
    torch.save(Net().state_dict(), path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("to", ["itself", "elsewhere"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changes_between_or_after_the_passes(
    tmp_path: Path, change: Callable[[Path], None], to: str, suffix: str
) -> None:
    source = saved(tmp_path / f"in{suffix}")
    output = source if to == "itself" else tmp_path / f"out{suffix}"
    plan = plan_pruning(source, 0.5)
    decision = decide_pruning(plan)
    change(source)
    after = contents(tmp_path)
    complaint = COMPLAINT if change is not gone else "cannot read"
    with pytest.raises(sc.FailureError, match=complaint) as caught:
        write_pruned(plan, decision, output)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == after, "nothing was written"
    if change is not gone:
        with pytest.raises(sc.FailureError, match=COMPLAINT):
            decide_pruning(plan)


def during(path: Path, change: Callable[[Path], None], calls: int) -> Callable[[int], None]:
    """Tell of progress, and change the file at the call of this number."""
    left = calls

    def advance(_: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            change(path)

    return advance


@pytest.mark.parametrize("change", CHANGES[:4], ids=lambda change: change.__name__)
@pytest.mark.parametrize("calls", [1, 7])
@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", INDEX])
def test_a_folder_that_a_trainer_saves_over(
    tmp_path: Path, change: Callable[[Path], None], calls: int, name: str
) -> None:
    shards(tmp_path / "in")
    path = tmp_path / "in" / name
    before = set(contents(tmp_path))
    with pytest.raises(sc.FailureError, match=COMPLAINT) as caught:
        prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5, advance=during(path, change, calls))
    assert "\n" not in str(caught.value)
    assert set(contents(tmp_path)) == before


def test_compressing_and_expanding_look_too(tmp_path: Path) -> None:
    source = saved(tmp_path / "in.safetensors")
    small = tmp_path / "small.safetensors.zst"
    with pytest.raises(sc.FailureError, match=COMPLAINT):
        prune_checkpoint(source, small, 0.5, compress=True, advance=during(source, in_place, 5))
    prune_checkpoint(source, small, 0.5, compress=True)
    with pytest.raises(sc.FailureError, match=COMPLAINT):
        decompress_checkpoint(
            small, tmp_path / "out.safetensors", advance=during(small, in_place, 2)
        )
    assert not (tmp_path / "out.safetensors").exists()


def test_a_link_that_leads_elsewhere_meanwhile(tmp_path: Path) -> None:
    saved(tmp_path / "one.safetensors")
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    link = tmp_path / "link.safetensors"
    link.symlink_to("one.safetensors")

    def turn(path: Path) -> None:
        path.unlink()
        path.symlink_to("two.safetensors")

    with pytest.raises(sc.FailureError, match=COMPLAINT):
        prune_checkpoint(link, tmp_path / "out.safetensors", 0.5, advance=during(link, turn, 2))


def test_a_header_that_is_written_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path / "in.safetensors")
    read = weight_files.read_header

    def torn(path: Path) -> object:
        by_rename(path)
        path.write_bytes(path.read_bytes()[:100])
        return read(path)

    monkeypatch.setattr(weight_files, "read_header", torn)
    with pytest.raises(sc.FailureError, match=COMPLAINT):
        prune_checkpoint(source, tmp_path / "out.safetensors", 0.5)


def test_two_changes_within_a_tick_of_the_clock_differ(tmp_path: Path) -> None:
    for _ in range(5):
        (tmp_path / "file").write_bytes(b"a")
        state = identify(tmp_path / "file")
        with (tmp_path / "file").open("r+b") as file:
            file.write(b"b")
        with pytest.raises(sc.FailureError, match=COMPLAINT):
            check_unchanged({tmp_path / "file": state})


def test_reading_and_linking_from_elsewhere_is_no_change(tmp_path: Path) -> None:
    source = saved(tmp_path / "in.safetensors")
    prune_checkpoint(
        source, tmp_path / "out.safetensors", 0.5, advance=lambda _: source.read_bytes()
    )
    assert (tmp_path / "out.safetensors").exists()
