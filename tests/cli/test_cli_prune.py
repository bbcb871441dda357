"""``secateurs prune``: what it prints, and each mistake as one line."""

import json
from pathlib import Path

import pytest
import torch
from command_line import Run
from safetensors.torch import load_file, save_file
from torch import nn

import secateurs as sc


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save_file(net().state_dict(), tmp_path / "in.safetensors", {"format": "pt"})
    return tmp_path / "in.safetensors"


def test_it_prunes_and_says_so(run: Run, stored: Path) -> None:
    done = run("prune", stored, "-o", "out.safetensors", "--p-prune", "0.5")
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if line.strip(" ─")]
    assert lines[0].split() == ["tensor", "dtype", "shape", "pruned", "of", "ratio"]
    assert [line.split()[0] for line in lines[1:]] == ["0.weight", "3.weight", "total"]
    assert lines[-1].split() == ["total", "94", "188", "50.00%"]
    said = done.err.splitlines()
    assert said[0].startswith("pruning 2 of 9 tensors (188 weights, 752 B); the others stay: ")
    assert said[1].startswith("threshold: 0.") and said[1].endswith("(94 of 188 units)")
    assert said[2] == "wrote out.safetensors (1.5 kB) to ."
    expected = sc.global_prune(net(), 0.5).state_dict()
    found = load_file("out.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_all_options_reach_it(run: Run, stored: Path) -> None:
    words = "--p_prune 0.6 --p-bern 0.5 --granularity kernel --scope layer --score random --seed 3"
    done = run("prune", stored, *words.split(), "--layers", "conv2d", "-o", "out.safetensors")
    assert done.code == 0, done
    expected = sc.global_prune(
        net(),
        0.6,
        0.5,
        granularity="kernel",
        scope="layer",
        score="random",
        seed=3,
        layers="conv2d",
    ).state_dict()
    found = load_file("out.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "0.weight: 0." in done.err


def test_neighbours_need_no_ratio(run: Run, stored: Path) -> None:
    done = run("prune", stored, "--scope", "2:4", "--exclude", "0", "-o", "out.safetensors")
    assert done.code == 0, done
    assert "2 of every 4 inputs are kept: candidates are 40 of 80 units" in done.err
    expected = sc.global_prune(net(), scope="2:4", exclude="0").state_dict()
    assert torch.equal(load_file("out.safetensors")["3.weight"], expected["3.weight"])


def test_patterns_take_several_values(run: Run, stored: Path) -> None:
    done = run("prune", stored, "--p-prune=1", "--include", "0", "3.bias", "-o", "out.safetensors")
    assert done.code == 0
    found = load_file("out.safetensors")
    zero = {name for name, tensor in found.items() if not tensor.any()} - {
        "1.bias",
        "1.running_mean",
        "1.num_batches_tracked",
    }
    assert zero == {"0.weight", "3.bias"}


def test_a_dry_run_prints_the_plan_and_the_threshold_only(run: Run, stored: Path) -> None:
    done = run("prune", stored, "--p-prune", "0.5", "--dry-run")
    assert done.code == 0 and done.err == ""
    lines = [line for line in done.out.splitlines() if line.strip(" ─")]
    assert lines[0].split() == ["tensor", "dtype", "shape", "elements"]
    chosen = [line.split()[0] for line in lines if line.endswith("prune")]
    assert chosen == ["0.weight", "3.weight"]
    assert len(lines) == 1 + 9 + 1
    weights = torch.cat([p.flatten() for n, p in net().state_dict().items() if n in chosen])
    threshold = float(lines[-1].split()[1])
    assert threshold == pytest.approx(weights.abs().sort().values[93].item(), rel=1e-8)
    assert [path.name for path in Path().iterdir()] == ["in.safetensors"]


def test_compress_and_back(run: Run, stored: Path) -> None:
    assert run("prune", stored, "--p-prune", "0.9", "-o", "dense.safetensors").code == 0
    done = run("prune", stored, "--p-prune", "0.9", "--compress", "-o", "small.safetensors.zst")
    assert done.code == 0
    done = run("prune", "small.safetensors.zst", "--decompress", "-o", "back.safetensors")
    assert done.code == 0 and done.err == "wrote back.safetensors to .\n"
    assert Path("back.safetensors").read_bytes() == Path("dense.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("in.safetensors", 2, "--p-prune is missing"),
        ("in.safetensors --p-prune 0.5", 2, "--output is missing: write -o PATH"),
        ("in.safetensors --p-prune half", 2, "--p-prune takes numbers such as 0.5, got 'half'"),
        ("in.safetensors --p-prune 50", 2, "for 50 per cent write 0.5"),
        ("in.safetensors --p-prune 0.5 --p-bern 2", 2, "--p-bern must be from 0 to 1"),
        (
            "in.safetensors --p-prune 0.5 --p-bern 0.5",
            2,
            "--p-bern 0.5 draws random numbers: write --seed 0",
        ),
        (
            "in.safetensors --p-prune 0.5 --score taylor",
            2,
            "--score must be one of magnitude, lamp, random",
        ),
        ("in.safetensors --p-prune 0.5 --granularity row", 2, "--granularity must be one of"),
        ("in.safetensors --p-prune 0.5 --scope all", 2, "scope must be one of"),
        ("in.safetensors --scope 2:4", 2, "to keep them dense write --exclude 0.weight"),
        ("in.safetensors --scope 4:2", 2, "--scope 4:2 keeps 4 of every 2 inputs"),
        ("in.safetensors --scope 2:4 --p-prune 0.3", 2, "write --p-prune 0.5, or another scope"),
        ("in.safetensors --p-prune 0.5 --layers conf", 2, "did you mean conv"),
        ("in.safetensors --p-prune 0.5 --include nothing", 2, "matches no tensor"),
        ("in.safetensors --p-prune 0.5 -o out.bin", 2, "and so must be the output"),
        ("in.safetensors --p-prune 0.5 -o out.txt", 2, "must be a .safetensors"),
        ("nowhere.safetensors --p-prune 0.5 -o out.safetensors", 2, "there is no checkpoint"),
        ("notes.txt --p-prune 0.5 -o out.safetensors", 2, "notes.txt is no checkpoint"),
        (". --p-prune 0.5 -o out", 2, "several checkpoints"),
        ("short.safetensors --p-prune 0.5 -o out.safetensors", 1, "its tensors need"),
        ("short.pt --p-prune 0.5 -o out.pt", 1, "cannot read short.pt"),
        ("in.safetensors --decompress -o out.safetensors", 2, "is not compressed"),
        ("in.safetensors --decompress --p-prune 0.5 -o out.safetensors", 2, "alone"),
        ("--p-prune 0.5 -o out.safetensors", 2, "IN is missing"),
        ("in.safetensors --p-prun 0.5", 2, "did you mean --p-prune"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, stored: Path, words: str, code: int, complaint: str
) -> None:
    Path("notes.txt").write_text("")
    Path("short.safetensors").write_bytes(stored.read_bytes()[:-1])
    torch.save(net().state_dict(), "whole.pt")
    Path("short.pt").write_bytes(Path("whole.pt").read_bytes()[:-100])
    before = {path: path.read_bytes() for path in Path().iterdir()}
    done = run("prune", *words.split())
    assert done.code == code
    assert complaint in done.complaint
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_copied_files_are_named(run: Run, stored: Path) -> None:
    base, store = stored.parent / "base", stored.parent / "store"
    base.mkdir()
    store.mkdir()
    stored.rename(store / "model.safetensors")
    (base / "model.safetensors").symlink_to(store / "model.safetensors")
    (base / "config.json").write_text("{}")
    (base / "training_args.bin").write_bytes(b"x")
    words = ("prune", "base", "--p-prune", "0.5", "-o")
    said = run(*words, "out").err
    assert "copied along: config.json\n" in said and "links" not in said
    assert "left out, other weights or the state of a training: training_args.bin\n" in said
    assert "copied along: config.json\n" in run(*words, ".").err
    said = run(*words, "base").err
    assert "the target of a link has not changed (model.safetensors)" in said
    assert "copied" not in said and not (base / "model.safetensors").is_symlink()


def test_nan_is_named(run: Run, tmp_path: Path) -> None:
    save_file({"fc.weight": torch.tensor([[1.0, float("nan")]])}, tmp_path / "nan.safetensors")
    done = run("prune", "nan.safetensors", "--p-prune", "0.5", "-o", "out.safetensors")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("secateurs: the score of fc.weight is NaN")
    assert not Path("out.safetensors").exists()


def test_a_set_of_weights_is_chosen_by_key(run: Run) -> None:
    torch.save({"net": net().state_dict(), "ema": net().state_dict(), "epoch": 3}, "in.pth.tar")
    words = ("prune", "in.pth.tar", "-o", "out.pth.tar", "--p-prune", "0.5")
    refused = run(*words)
    assert refused.code == 2 and "--key net for one of them" in refused.err
    assert not Path("out.pth.tar").exists()
    done = run(*words, "--key", "ema")
    assert done.code == 0
    found = torch.load("out.pth.tar", weights_only=True)
    assert [int((found[k]["3.weight"] == 0).sum()) > 0 for k in ("net", "ema")] == [False, True]


def test_what_was_taken_for_tied_or_left_out_is_named(run: Run) -> None:
    Path("in").mkdir()
    save_file(net().state_dict(), "in/model.safetensors")
    torch.save({"state": {}, "param_groups": []}, "in/optimizer.pt")
    places = dict.fromkeys([*net().state_dict(), "lm_head.weight"], "model.safetensors")
    Path("in/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    done = run("prune", "in", "-o", "out", "--p-prune", "0.5")
    assert done.code == 0, done
    assert "taken for tied to other weights: lm_head.weight" in done.err
    assert "left out, other weights or the state of a training: optimizer.pt" in done.err
