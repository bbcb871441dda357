"""What goes along with the weights of a folder, and that nothing from outside it does."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_folders import INDEX, contents, loaded, pruned_net, shards
from stored_models import Net, assert_same, to_file

import secateurs as sc
from secateurs.checkpoint import prune_checkpoint

COPIED = {"config.json", "1_Pooling/config.json"}


def single(folder: Path) -> Path:
    """A folder with one file of weights, and what lies beside it."""
    (folder / "1_Pooling").mkdir(parents=True)
    to_file(folder / "model.safetensors", Net().state_dict())
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


def cached(hub: Path) -> Path:
    """A snapshot as the cache of Hugging Face lays it out: every file a link into the blobs."""
    repository = hub / "models--org--net"
    snapshot = repository / "snapshots" / "0123abc"
    shards(repository / "whole")
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(p for p in (repository / "whole").rglob("*"))):
        if path.is_file():
            link = snapshot / path.relative_to(repository / "whole")
            link.parent.mkdir(parents=True, exist_ok=True)
            path.rename(repository / "blobs" / f"blob{number}")
            link.symlink_to(os.path.relpath(repository / "blobs" / f"blob{number}", link.parent))
    return snapshot


def plain(folder: Path, but: str = "/") -> set[str]:
    """The files in a folder, as they are called where no older ones are in their way."""
    names = {name for name in contents(folder) if not name.startswith(but)}
    return {name.replace(".r1.", ".") for name in names}


@pytest.mark.parametrize("make", [single, shards], ids=["one file", "shards"])
def test_an_output_that_contains_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "base")
    before = contents(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second replaces the first
        summary = prune_checkpoint("base", ".", 0.5)
        assert set(summary.copied) == COPIED
        assert contents(tmp_path / "base") == before
        assert plain(tmp_path, but="base/") == set(before)
    monkeypatch.chdir(tmp_path / "base")
    prune_checkpoint(".", "..", 0.5)
    assert contents(tmp_path / "base") == before


def test_an_output_inside_the_input_and_through_links(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    before = set(contents(tmp_path / "in"))
    (tmp_path / "way").symlink_to(tmp_path / "in")
    for output in ("in/out", "way/out", "in/further/out"):
        for _ in range(2):  # the first is no part of the input
            assert set(prune_checkpoint(tmp_path / "in", tmp_path / output, 0.5).copied) == COPIED
            assert plain(tmp_path / output) == before
        assert_same(loaded(tmp_path / output), pruned_net())
        for path in sorted((tmp_path / "in" / Path(output).parts[1]).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert set(contents(tmp_path / "in")) == before
    prune_checkpoint(tmp_path / "in", tmp_path / "way", 0.5)
    assert_same(loaded(tmp_path / "in"), pruned_net())


def test_files_of_somebody_else_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single(tmp_path / "base")
    (tmp_path / "config.json").write_text("mine")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sc.InvalidArgumentError, match=r"config.json is another file than .* base"):
        prune_checkpoint("base", ".", 0.5)
    assert contents(tmp_path) == before
    (tmp_path / "config.json").write_text("{}")
    prune_checkpoint("base", ".", 0.5)


def test_a_copy_that_would_land_in_the_input(tmp_path: Path) -> None:
    single(tmp_path / "a")
    (tmp_path / "a" / "a").mkdir()
    (tmp_path / "a" / "a" / "config.json").write_text("of another network")
    before = contents(tmp_path)
    with pytest.raises(sc.InvalidArgumentError, match="which leads into the input"):
        prune_checkpoint(tmp_path / "a", tmp_path, 0.5)
    assert contents(tmp_path) == before


def test_a_copy_that_would_land_outside_the_output(tmp_path: Path) -> None:
    single(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(sc.InvalidArgumentError, match="which leads outside it"):
        prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    assert not contents(tmp_path / "elsewhere") and not contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("../secret", "is a link to .*secret, outside the folder"),
        ("{tmp}/secret", "is a link to .*secret, outside the folder"),
        ("detour", "is a link to .*secret, outside the folder"),
        ("..", "outside the folder"),
        ("nowhere", "is a link that leads nowhere"),
        ("tokenizer.json", "is a link that leads nowhere"),
    ],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "1_Pooling/tokenizer.json"])
def test_links_that_lead_outside_are_refused(
    tmp_path: Path, name: str, target: str, complaint: str
) -> None:
    single(tmp_path / "in")
    (tmp_path / "secret").write_text("secret")
    if target == "detour":
        (tmp_path / "in" / "detour").symlink_to("../secret")
    link = tmp_path / "in" / name
    link.symlink_to(Path(target.format(tmp=tmp_path)))
    if target in ("../secret", "..") and "/" in name:
        link.unlink()
        link.symlink_to(Path("..") / target)
    with pytest.raises(sc.InvalidArgumentError, match=complaint) as caught:
        prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)  # where nothing is copied


def test_links_inside_the_folder(tmp_path: Path) -> None:
    single(tmp_path / "in")
    (tmp_path / "in" / "first.json").symlink_to(tmp_path / "in" / "config.json")
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "1_Pooling")
    (tmp_path / "out").mkdir()
    for output in ("new", "out", "out"):
        out = tmp_path / output
        summary = prune_checkpoint(tmp_path / "in", out, 0.5)
        assert "first.json" in summary.copied
        assert not (out / "first.json").is_symlink() and (out / "first.json").read_text() == "{}"
        assert (out / "latest").readlink() == Path("1_Pooling")


def test_a_snapshot_of_the_cache_of_hugging_face(tmp_path: Path) -> None:
    snapshot = cached(tmp_path / "hub")
    blobs = contents(tmp_path / "hub" / "models--org--net" / "blobs")
    summary = prune_checkpoint(snapshot, tmp_path / "out", 0.5)
    assert set(summary.copied) == COPIED and not summary.were_links
    assert_same(loaded(tmp_path / "out"), pruned_net())
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    summary = prune_checkpoint(snapshot, snapshot, 0.5)
    assert INDEX in summary.were_links
    assert_same(loaded(snapshot), pruned_net())
    assert contents(tmp_path / "hub" / "models--org--net" / "blobs") == blobs


@pytest.mark.parametrize("trick", ["a blob", "the blobs"])
def test_a_folder_that_only_looks_like_that_cache(tmp_path: Path, trick: str) -> None:
    snapshot = single(tmp_path / "net" / "snapshots" / "0123abc")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret").write_text("secret")
    blobs = tmp_path / "net" / "blobs"
    if trick == "the blobs":
        blobs.symlink_to(tmp_path / "home")
    else:
        blobs.mkdir()
        (blobs / "secret").symlink_to(tmp_path / "home" / "secret")
    (snapshot / "tokenizer.json").symlink_to(Path("../../blobs/secret"))
    with pytest.raises(sc.InvalidArgumentError, match="outside the folder"):
        prune_checkpoint(snapshot, tmp_path / "out", 0.5)
