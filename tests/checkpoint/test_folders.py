"""Sharded folders: all files of a checkpoint, or none of them."""

import json
import os
from pathlib import Path

import pytest
import torch
from stored_folders import INDEX, contents, loaded, pruned_net, shards
from stored_models import Net, assert_same, to_file

import secateurs as sc
from secateurs.checkpoint import decompress_checkpoint, prune_checkpoint


@pytest.mark.parametrize("p_bern", [1.0, 0.5])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_folder_is_pruned_as_its_model_is(tmp_path: Path, parts: int, p_bern: float) -> None:
    shards(tmp_path / "in", parts)
    before = contents(tmp_path / "in")
    prune_checkpoint(tmp_path / "in", tmp_path / "to" / "out", 0.5, p_bern, seed=2)
    assert_same(loaded(tmp_path / "to" / "out"), pruned_net(p_bern=p_bern, seed=2))
    assert contents(tmp_path / "in") == before
    after = contents(tmp_path / "to" / "out")
    assert after.keys() == before.keys()
    for name in (INDEX, "config.json", "1_Pooling/config.json"):
        assert after[name] == before[name]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["out"]


def test_the_index_may_be_given(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    prune_checkpoint(tmp_path / "in" / INDEX, tmp_path / "out", 0.5)
    assert_same(loaded(tmp_path / "out"), pruned_net())


def test_the_folder_itself_may_be_the_output(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shards(folder)
    for p_prune in (0.3, 0.5):  # what is zero already is pruned first
        prune_checkpoint(folder, folder, p_prune)
        assert_same(loaded(folder), pruned_net(p_prune))
        files = {p.name for p in folder.glob("*.safetensors")}
        assert files == set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    assert not list(folder.glob(".*"))


def test_an_older_result_is_replaced_by_its_index(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    for p_prune in (0.9, 0.5):
        prune_checkpoint(tmp_path / "in", tmp_path / "out", p_prune)
    assert_same(loaded(tmp_path / "out"), pruned_net())
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2


def test_until_the_index_is_renamed_the_old_files_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before each rename in turn: what the index leads to is all old, or all new."""
    shards(tmp_path / "in")
    old = loaded(tmp_path / "in")
    rename = Path.replace
    for stop in range(4):
        done = 0

        def some(path: Path, target: Path, stop: int = stop) -> Path:
            nonlocal done
            if done == stop:
                raise KeyboardInterrupt
            done += 1
            return rename(path, target)

        monkeypatch.setattr(Path, "replace", some)
        with pytest.raises(KeyboardInterrupt):
            prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
        monkeypatch.undo()
        assert_same(loaded(tmp_path / "in"), old)
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    assert_same(loaded(tmp_path / "in"), pruned_net())


def test_compressed_folders_and_back(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    prune_checkpoint(tmp_path / "in", tmp_path / "dense", 0.5)
    prune_checkpoint(tmp_path / "in", tmp_path / "small", 0.5, compress=True)
    assert_same(sc.load_checkpoint(tmp_path / "small"), pruned_net())
    index = json.loads((tmp_path / "small" / INDEX).read_text())
    names = sorted(path.name for path in (tmp_path / "small").glob("model*.zst"))
    assert sorted(set(index["weight_map"].values())) == names and len(names) == 2
    decompress_checkpoint(tmp_path / "small", tmp_path / "back")
    before, after = contents(tmp_path / "dense"), contents(tmp_path / "back")
    first, second = (json.loads(files.pop(INDEX)) for files in (before, after))
    assert first == second
    assert before == after


def test_shards_that_torch_saved(tmp_path: Path) -> None:
    shards(tmp_path / "in", suffix=".bin")
    prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    found: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "out").glob("*.bin"):
        found |= torch.load(path, weights_only=True)
    assert_same(found, pruned_net())
    prune_checkpoint(tmp_path / "in", tmp_path / "small", 0.5, compress=True)
    assert (tmp_path / "small" / INDEX).is_file()
    assert (tmp_path / "small" / "model-00001-of-00002.safetensors.zst").is_file()
    assert_same(sc.load_checkpoint(tmp_path / "small"), pruned_net())


def test_one_file_and_other_weights_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shards(folder)
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    to_file(folder / "model.safetensors", Net().state_dict())
    torch.save({}, folder / "pytorch_model.bin")
    torch.save({}, folder / "training_args.bin")
    prune_checkpoint(folder, tmp_path / "out", 0.5)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["1_Pooling", "config.json", "model.safetensors"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    """As the cache of Hugging Face lays out its snapshots."""
    shards(tmp_path / "blobs")
    (tmp_path / "in").mkdir()
    for path in (p for p in (tmp_path / "blobs").iterdir() if p.is_file()):
        (tmp_path / "in" / path.name).symlink_to(path)
    before = contents(tmp_path / "blobs")
    prune_checkpoint(tmp_path / "in", tmp_path / "in", 0.5)
    assert_same(loaded(tmp_path / "in"), pruned_net())
    assert contents(tmp_path / "blobs") == before


def broken(folder: Path, change) -> Path:
    shards(folder)
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"], folder)
    (folder / INDEX).write_text(json.dumps(index))
    return folder


CHANGES = {
    "names a missing shard": (
        lambda places, folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        "names model-00002-of-00002.safetensors, which is not in its folder",
    ),
    "leads outside": (
        lambda places, folder: places.update({"conv.weight": "../model.safetensors"}),
        "is no file name in its folder",
    ),
    "leads to the root": (
        lambda places, folder: places.update({"conv.weight": "/etc/passwd.safetensors"}),
        "is no file name in its folder",
    ),
    "names no weights": (
        lambda places, folder: places.update({"conv.weight": "config.json"}),
        "is no file name in its folder",
    ),
    "names a number": (
        lambda places, folder: places.update({"conv.weight": 3}),
        "is no file name in its folder",
    ),
    "is of another place": (
        lambda places, folder: places.update({"conv.weight": "model-00002-of-00002.safetensors"}),
        "and it is not",
    ),
    "names a tensor that is nowhere": (
        lambda places, folder: places.update({"x": "model-00002-of-00002.safetensors"}),
        "and it is not",
    ),
    "names a file of 100,000 characters": (
        lambda places, folder: places.update({"conv.weight": "x" * 100_000 + ".safetensors"}),
        "is no file name in its folder",
    ),
    "names a tensor of 100,000 characters": (
        lambda places, folder: places.update({"x" * 100_000: "config.json"}),
        "is no file name in its folder",
    ),
    "names half a surrogate": (
        lambda places, folder: places.update({"\ud800": "model-00002-of-00002.safetensors"}),
        "half a character",
    ),
    "is empty": (lambda places, folder: places.clear(), "it has no weight_map"),
    "has a shard cut short": (
        lambda places, folder: (folder / "model-00001-of-00002.safetensors").write_bytes(
            (folder / "model-00001-of-00002.safetensors").read_bytes()[:-1]
        ),
        "its tensors need",
    ),
    "has a tensor twice": (
        lambda places, folder: to_file(
            folder / "model-00002-of-00002.safetensors", Net().state_dict()
        ),
        "parts of two checkpoints",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_index_that_is_wrong(tmp_path: Path, what: str) -> None:
    change, complaint = CHANGES[what]
    folder = broken(tmp_path / "in", change)
    before = contents(folder)
    with pytest.raises(sc.FailureError, match=complaint) as caught:
        prune_checkpoint(folder, tmp_path / "out", 0.5)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


JSON = {
    "nests": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "has an infinity": (b'{"weight_map": {}, "total_size": 1e999}', "beyond all bounds"),
    "has a long number": (b'{"a":' + b"9" * 100_000 + b"}", "thousands of digits"),
    "is not UTF-8": (b'{"\xff": 1}', "byte 2 is no UTF-8"),
    "begins with a byte order mark": (b'\xef\xbb\xbf{"weight_map": {}}', "not JSON"),
    "is a list": (b"[]", "is not an object"),
    "is empty": (b"", "not JSON"),
}


@pytest.mark.parametrize("what", JSON)
def test_an_index_whose_text(tmp_path: Path, what: str) -> None:
    shards(tmp_path / "in")
    text, complaint = JSON[what]
    (tmp_path / "in" / INDEX).write_bytes(text)
    with pytest.raises(
        sc.FailureError, match=f"cannot read .* as an index: .*{complaint}"
    ) as caught:
        prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_an_index_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    (tmp_path / "in" / INDEX).unlink()
    os.mkfifo(tmp_path / "in" / INDEX)
    with pytest.raises(sc.FailureError, match="without their index"):
        prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    to_file(tmp_path / "other" / "model.safetensors", {})
    single = to_file(tmp_path / "one.safetensors", Net().state_dict())
    for source, output, complaint in (
        (tmp_path / "in", tmp_path / "out.safetensors", "is a file's name"),
        (tmp_path / "in", tmp_path / "file", "must be a folder"),
        (tmp_path / "in", tmp_path / "other", "holds other weights"),
        (single, tmp_path / "out", "must be a .safetensors"),
        (single, "", "output is an empty path"),
        ("", tmp_path / "out", "source is an empty path"),
        (single, tmp_path / "out.pt", "and so must be the output"),
        (tmp_path / "other", tmp_path / "out", "nothing to prune"),
        (tmp_path / "nowhere", tmp_path / "out", "there is no checkpoint"),
        (tmp_path, tmp_path / "out", "nothing to prune|holds no checkpoint"),
    ):
        if source == tmp_path:
            single.unlink()
        with pytest.raises(sc.InvalidArgumentError, match=complaint):
            prune_checkpoint(source, output, 0.5)
    prune_checkpoint(to_file(single, Net().state_dict()), tmp_path / "in" / "1_Pooling", 0.5)
    assert (tmp_path / "in" / "1_Pooling" / "one.safetensors").is_file()
