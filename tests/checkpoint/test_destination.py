"""Modes, owners and links: what is private stays private, and what a link leads to stays whole."""

import os
import stat
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stored_folders import INDEX, contents, loaded, pruned_net, shards
from stored_models import Net, assert_same, to_file

from secateurs.checkpoint import decompress_checkpoint, prune_checkpoint
from secateurs.errors import FailureError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")


@pytest.fixture(autouse=True)
def _umask() -> Generator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    """By path; shards by the names that they have where no older ones are in their way."""
    paths = (folder, *folder.rglob("*"))
    return {str(p.relative_to(folder)).replace(".r1.", "."): mode(p) for p in paths}


def net(path: Path, bits: int = 0o644) -> Path:
    torch.manual_seed(0)
    to_file(path, Net().state_dict())
    path.chmod(bits)
    return path


def watching(folder: Path, seen: set[int]) -> Callable[[int], None]:
    """Note the modes of what lies under temporary names."""

    def advance(_: int) -> None:
        for path in folder.rglob("*.tmp"):
            seen.add(mode(path))
            seen.update(mode(inside) for inside in path.rglob("*"))

    return advance


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o755, 0o664])
def test_a_file_in_place_keeps_its_mode(tmp_path: Path, bits: int) -> None:
    source, seen = net(tmp_path / "in.safetensors", bits), set[int]()
    prune_checkpoint(source, source, 0.5, advance=watching(tmp_path, seen))
    assert mode(source) == bits and seen == {0o600}
    older = net(tmp_path / "out.safetensors", bits)
    prune_checkpoint(net(tmp_path / "other.safetensors"), older, 0.5)
    assert mode(older) == bits


@pytest.mark.parametrize(("bits", "new"), [(0o600, 0o600), (0o755, 0o755), (0o664, 0o644)])
def test_a_new_file_is_like_its_input(tmp_path: Path, bits: int, new: int) -> None:
    source, seen = net(tmp_path / "in.safetensors", bits), set[int]()
    small, out = tmp_path / "small.safetensors.zst", tmp_path / "to" / "out.safetensors"
    prune_checkpoint(source, small, 0.5, compress=True, advance=watching(tmp_path, seen))
    decompress_checkpoint(small, out, advance=watching(tmp_path, seen))
    assert mode(small) == mode(out) == new and mode(tmp_path / "to") == 0o755
    assert seen <= {new, 0o755}


def test_folders_keep_their_modes(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    wanted = {"1_Pooling": 0o700, "config.json": 0o600, INDEX: 0o640, "run.sh": 0o755}
    wanted |= {"1_Pooling/config.json": 0o640, ".": 0o700}
    wanted |= {f"model-0000{i}-of-00002.safetensors": 0o600 for i in (1, 2)}
    (tmp_path / "in" / "run.sh").write_text("")
    for name, bits in wanted.items():
        (tmp_path / "in" / name).chmod(bits)
    for output, watched in (("out", tmp_path), ("out", tmp_path / "out"), ("in", tmp_path / "in")):
        seen = set[int]()
        out = tmp_path / output
        prune_checkpoint(tmp_path / "in", out, 0.5, advance=watching(watched, seen))
        assert modes(out) == wanted
        assert seen <= {0o600, 0o640, 0o700, 0o755}, "temporary ones too"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_files_in_place_stay_their_owners(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    for path in (tmp_path / "in").rglob("*"):
        os.chown(path, 12345, 23456)
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (tmp_path / "in").rglob("*")}
    assert owners == {(12345, 23456)}


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("to", ["itself", "elsewhere"])
def test_what_a_link_leads_to_stays(tmp_path: Path, link: Callable[..., None], to: str) -> None:
    store = net(tmp_path / "store.safetensors", 0o600)
    before = store.read_bytes()
    name = tmp_path / "link.safetensors"
    link(store, name)
    source = name if to == "itself" else net(tmp_path / "in.safetensors")
    summary = prune_checkpoint(source, name, 0.5)
    assert summary.were_links == ("link.safetensors",)
    assert store.read_bytes() == before
    assert not name.is_symlink() and name.stat().st_nlink == 1 and mode(name) == 0o600
    assert_same(load_file(name), pruned_net())
    assert not prune_checkpoint(source, name, 0.5).were_links or source != name


def test_a_link_that_leads_nowhere_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").symlink_to("nowhere.safetensors")
    prune_checkpoint(net(tmp_path / "in.safetensors"), tmp_path / "out.safetensors", 0.5)
    assert not (tmp_path / "out.safetensors").is_symlink()
    assert not (tmp_path / "nowhere.safetensors").exists()


def test_a_folder_that_is_a_link_stays_one(tmp_path: Path) -> None:
    shards(tmp_path / "store")
    (tmp_path / "link").symlink_to("store")
    prune_checkpoint(tmp_path / "link", tmp_path / "link", 0.5)
    assert (tmp_path / "link").is_symlink()
    assert_same(loaded(tmp_path / "store"), pruned_net())


def test_a_read_only_checkpoint_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "several"
    shards(folder)
    (tmp_path / "one").mkdir()
    file = net(tmp_path / "one" / "model.safetensors")
    for protected, path in ((file, file), (folder / INDEX, folder)):
        protected.chmod(0o444)
        before = contents(protected.parent)
        with pytest.raises(FailureError, match=f"{protected.name} is read-only"):
            prune_checkpoint(path, path, 0.5)
        assert contents(protected.parent) == before
