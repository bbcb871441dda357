"""Folders as trainers and hubs leave them: the file that is pruned is the one that is loaded."""

import json
from pathlib import Path

import pytest
import torch
from stored_folders import INDEX, contents, loaded, pruned_net, shards
from stored_models import Net, assert_same, to_file

import secateurs as sc
from secateurs.checkpoint import plan_pruning, prune_checkpoint

OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(4, 4)}}, "param_groups": [{"lr": 0.1}]}
STATES = (
    "optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth", "rng_state_0.pth",
    "training_args.bin", "scaler.pt", "random_states_0.pkl", "sampler.bin", "dl_state_dict.bin",
    "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
)  # fmt: skip


def folder_of(path: Path, *names: str) -> Path:
    """A folder with weights under these names; those of `STATES` hold an optimizer instead."""
    path.mkdir()
    for name in names:
        if name in STATES:
            torch.save(OPTIMIZER, path / name)
        elif name.endswith(INDEX.removeprefix("model.safetensors")):
            (path / name).write_text(json.dumps({"weight_map": {}}))
        elif name.lower().endswith(".safetensors"):
            to_file(path / name, Net().state_dict())
        else:
            torch.save(Net().state_dict(), path / name)
    return path


CHOSEN = {
    "pytorch_model.bin": ("ema.pt", *STATES),
    "model.safetensors": ("pytorch_model.bin", "ema.safetensors", "model.fp16.safetensors"),
    "pytorch_model.bin ": ("adapter.safetensors", "optimizer.pt"),
    "net.pt": ("optimizer.pt", "scheduler.pt", "config.json"),
    "ema.pt": ("optimizer.pt",),
    "checkpoint.pth.tar": ("rng_state.pth",),
    "checkpoint.tar": ("optimizer.pt",),
    "NET.PTH": ("training_args.bin",),
    "optimus.pt": ("optimizer.pt",),
    "diffusion_pytorch_model.safetensors": ("scheduler.pt", "vae.safetensors"),
    "model-00001-of-00001.safetensors": ("optimizer.bin",),
}


@pytest.mark.parametrize("expected", CHOSEN)
def test_the_file_with_the_weights_is_found(tmp_path: Path, expected: str) -> None:
    name = expected.strip()
    folder = folder_of(tmp_path / "in", name, *CHOSEN[expected])
    source = plan_pruning(folder, 0.5).source
    assert [file.path.name for file in source.files] == [name]
    left = {str(path) for path in source.left_out}
    assert {n for n in CHOSEN[expected] if n != "config.json"} == left


DOUBTFUL = {
    ("ema.pt", "net.pt"): "several checkpoints (ema.pt, net.pt)",
    ("ema.pt", "checkpoint.pth"): "several checkpoints (checkpoint.pth, ema.pt)",
    ("a.safetensors", "b.bin"): "several checkpoints (a.safetensors, b.bin)",
    ("optimizer.pt", "scheduler.pt"): "no weights, only the state of a training (optimizer.pt",
    ("model-00001-of-00002.safetensors",): "without their index, model.safetensors.index.json",
    ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"): (
        "without their index, pytorch_model.bin.index.json"
    ),
}  # fmt: skip


@pytest.mark.parametrize("names", DOUBTFUL)
def test_in_doubt_nothing_is_pruned(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = folder_of(tmp_path / "in", *names)
    with pytest.raises((sc.InvalidArgumentError, sc.FailureError)) as caught:
        prune_checkpoint(folder, tmp_path / "out", 0.5)
    assert DOUBTFUL[names] in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_archive_of_other_files_is_taken_along(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "model.safetensors")
    (folder / "samples.tar").write_bytes(bytes(1024))
    prune_checkpoint(folder, tmp_path / "out", 0.5)
    assert contents(tmp_path / "out").keys() == contents(folder).keys()


def test_a_file_beside_an_index_that_does_not_name_it(tmp_path: Path) -> None:
    shards(tmp_path / "in")
    to_file(tmp_path / "in" / "model.safetensors", Net().state_dict())
    with pytest.raises(sc.InvalidArgumentError, match="several checkpoints"):
        prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    prune_checkpoint(tmp_path / "in" / INDEX, tmp_path / "out", 0.5)
    assert_same(loaded(tmp_path / "out"), pruned_net())


def with_index(folder: Path, change) -> Path:
    shards(folder)
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))
    return folder


TIED = ("lm_head.weight", "model.decoder.embed_tokens.weight", "cls.predictions.decoder.bias")


@pytest.mark.parametrize("config", [None, {}, {"tie_word_embeddings": True}], ids=str)
def test_a_tied_tensor_that_no_file_holds(tmp_path: Path, config: dict | None) -> None:
    folder = with_index(
        tmp_path / "in",
        lambda places: places.update(dict.fromkeys(TIED, "model-00002-of-00002.safetensors")),
    )
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    assert plan_pruning(folder, 0.5).source.tied == TIED
    prune_checkpoint(folder, tmp_path / "out", 0.5)
    assert (tmp_path / "out" / INDEX).read_bytes() == (folder / INDEX).read_bytes()
    assert_same(sc.load_checkpoint(tmp_path / "out"), pruned_net())


def test_a_head_that_the_configuration_does_not_tie_is_missing(tmp_path: Path) -> None:
    file = "model-00002-of-00002.safetensors"
    folder = with_index(tmp_path / "in", lambda places: places.update({"lm_head.weight": file}))
    (folder / "config.json").write_text('{"tie_word_embeddings": false}')
    with pytest.raises(sc.FailureError, match="no file holds it"):
        plan_pruning(folder, 0.5)


def test_what_the_index_does_not_name_is_not_pruned_along(tmp_path: Path) -> None:
    folder = with_index(tmp_path / "in", lambda places: [places.pop("linear.weight")])
    before = contents(folder)
    with pytest.raises(sc.InvalidArgumentError, match=r"'linear.weight' is in .* does not name"):
        prune_checkpoint(folder, tmp_path / "out", 0.5)
    assert contents(folder) == before
    prune_checkpoint(folder, tmp_path / "out", 0.5, exclude="linear.weight")
    found = sc.load_checkpoint(tmp_path / "out")
    assert torch.equal(found["linear.weight"], sc.load_checkpoint(folder)["linear.weight"])
    assert int((found["conv.weight"] == 0).sum()) > 0


def test_what_cannot_be_pruned_need_not_be_named(tmp_path: Path) -> None:
    folder = with_index(tmp_path / "in", lambda places: [places.pop("linear.bias")])
    prune_checkpoint(folder, tmp_path / "out", 0.5)
    assert_same(sc.load_checkpoint(tmp_path / "out"), pruned_net())
