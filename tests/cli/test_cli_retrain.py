"""Train, prune and retrain from the command line."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run, no_file_above
from safetensors.torch import load_file

import secateurs as sc
from secateurs.cli.retrain_command import make_plan
from secateurs.cli.retrain_options import RetrainImages, RetrainPruning, RetrainTraining
from secateurs.results import RetrainRow, read_rows
from secateurs.training import masks_from_zeros
from secateurs.zoo import load_model

SHORT = ("retrain", "--dense-epochs", 2, "--epochs", 3, "--limit", 300)
WROTE = "wrote results.csv, results.jsonl, table.md, curves.png, curves.svg to "


OWN = """
from torch import nn

def plain():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    model.num_classes = 10
    model.preprocess = {"img_size": 8, "crop_pct": 1.0, "mean": (0.5,), "std": (0.5,)}
    return model

def chosen(pretrained=True):
    assert not pretrained
    return plain()

def frozen():
    return plain().requires_grad_(False)
"""


def comparable(rows: list[RetrainRow]) -> list[dict[str, str]]:
    return [{name: repr(v) for name, v in row.as_dict().items() if name != "duration"}
            for row in rows]  # fmt: skip


def test_a_run_leaves_rows_tables_curves_weights_and_masks(run: Run) -> None:
    said = run(*SHORT, "--compression", 5, "--granularity", "kernel", "--output", "here")
    assert said.code == 0, said.err
    lines = said.err.splitlines()
    assert lines[0] == "loading the network digits and the data digits ..."
    assert lines[1].startswith("seed 0, dense epoch 1: loss ") and len(lines) == 9
    assert lines[-1] == f"{WROTE}here; dense.safetensors, best.safetensors and masks.safetensors" \
        " are in here"  # fmt: skip
    table = Path("here/table.md").read_text()
    assert len(re.findall(r"^ +conv1.weight ", said.out, re.MULTILINE)) == 1
    assert "Size on disk, as it is and as one zstd stream:" in said.out and "|" not in said.out
    rows = read_rows("here", RetrainRow)
    dense, pruned = rows[-2:]
    assert (dense.phase, pruned.phase, pruned.p_prune) == ("test dense", "test pruned", 0.8)
    assert f"| all | 40,208 | {pruned.kept:,} | {100 * (1 - pruned.achieved):.2f} |" in table
    assert f"| {100 - dense.top1:.2f} | {100 - pruned.top1:.2f} |" in table
    size = Path("here/best.safetensors").stat().st_size
    assert f"| dense.safetensors | {size:,} |" in table
    assert f"| best.safetensors | {size:,} |" in table
    # The weights as they are, in a plain network, and the masks beside them.
    model = load_model("digits", weights="here/best.safetensors").model
    assert sc.sparsity(model).zeros == pruned.prunable - pruned.kept
    assert len({path.stat().st_mode for path in Path("here").glob("*.*")}) == 1
    masks = sc.Masks.load("here/masks.safetensors")
    assert all(torch.equal(masks[name], mask) for name, mask in masks_from_zeros(model).items())
    swept = run("sweep", "--weights", "here/best.safetensors", "--p-prune", 0, "--output", "sweep")
    assert swept.rows[0]["correct1"] == str(pruned.correct)


def test_the_same_command_reports_and_other_options_are_refused(run: Run) -> None:
    first = run(*SHORT, "--output", "here")
    rows = Path("here/results.jsonl").read_bytes()
    again = run(*SHORT, "--output", "here")
    assert (again.code, again.out) == (0, first.out)
    assert again.err.count("\n") == 2 and Path("here/results.jsonl").read_bytes() == rows
    other = run(*SHORT, "--ratio", 0.5, "--output", "here")
    assert other.code == 2 and "another configuration" in other.err.splitlines()[-1]
    over = run(*SHORT, "--ratio", 0.5, "--output", "here", "--overwrite")
    assert over.code == 0 and over.err.count("epoch") == 5
    assert read_rows("here", RetrainRow)[-1].p_prune == 0.5


def test_several_seeds_have_a_folder_each_and_more_can_follow(run: Run) -> None:
    words = ("retrain", "--dense-epochs", 1, "--epochs", 1, "--limit", 200, "--output", "here")
    assert run(*words, "--seeds", 3).code == 0
    said = run(*words, "--seeds", 3, 1)
    assert said.code == 0 and "seed 3" not in said.err and "±" in said.out
    assert {row.seed for row in read_rows("here", RetrainRow)} == {1, 3}
    first, second = (load_file(f"here/seed-{seed}/best.safetensors") for seed in (1, 3))
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])
    # Another seed that follows later must not go on with what was trained by other options.
    assert run(*words, "--seeds", 3, "--ratio", 0.5, "--overwrite").code == 0
    assert not list(Path("here/seed-1").iterdir())


def test_a_run_that_is_killed_goes_on(run: Run, tmp_path: Path) -> None:
    words = ("retrain", "--dense-epochs", 4, "--epochs", 6, "--schedule", "iterative",
             "--rounds", 3, "--regrow", "magnitude", "--limit", 300,
             "--distill", 0.5, "--temperature", 2)  # fmt: skip
    assert run(*words, "--output", "whole").code == 0
    command = [sys.executable, "-m", "secateurs", *map(str, words), "--output", "here"]
    cache = {"SECATEURS_CACHE": os.environ["SECATEURS_CACHE"], "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | cache, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not (tmp_path / "here/best.safetensors").exists() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    done = len(read_rows("here", RetrainRow))
    said = run(*words, "--output", "here")
    assert said.code == 0, said.err
    assert done < 12 and said.err.count("epoch") == 10 - done
    assert comparable(read_rows("here", RetrainRow)) == comparable(read_rows("whole", RetrainRow))
    assert {(row.distill, row.temperature) for row in read_rows("here", RetrainRow)} == {(0.5, 2.0)}
    for name in ("dense", "best", "last", "masks"):
        first, second = (load_file(f"{folder}/{name}.safetensors") for folder in ("here", "whole"))
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_a_full_disk_loses_nothing_and_the_same_command_goes_on(run: Run) -> None:
    assert run(*SHORT, "--output", "whole").code == 0
    with no_file_above(300_000):  # the weights fit, the state of the training does not
        said = run(*SHORT, "--output", "here")
    assert said.code == 1 and "the disk is full" in said.complaint
    assert "run the same command again to continue" in said.complaint
    assert run(*SHORT, "--output", "here").code == 0
    assert comparable(read_rows("here", RetrainRow)) == comparable(read_rows("whole", RetrainRow))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--data", "nowhere"), "no data 'nowhere'"),
        (("--arch", "torchvision:resnet18"), "needs images: write --data DIR"),
        (("--p-prune", 0.9, "--compression", 9), "give --ratio or --compression, not both"),
        (("--compression", 0.5), "--compression must be at least 1, got 0.5"),
        (("--ratio", 1.5), "--ratio must be from 0 to 1"),
        (("--schedule", "iterative"), "write more --epochs, or fewer --rounds"),
        (("--scope", "2:4"), "--scope 2:4 prunes at once: write --schedule one-shot and --ratio"),
        (("--scope", "2:4", "--schedule", "one-shot"), "--scope 2:4 needs inputs in groups of 4"),
        (("--distill", 2), "--distill must be from 0 to 1"),
        (("--distill", 0.5, "--dense-epochs", 0), "write more, or --weights"),
        (("--rewind",), "write --schedule iterative, or leave it out"),
        (("--epochs", 0), "--epochs of the retraining must be at least 1"),
        (("--lr", -1), "--lr must be a number from 0 on, got -1.0"),
        (("--dense-lr", -1), "--dense-lr must be a number from 0 on, got -1.0"),
        (("--dense-epochs", -1), "--dense-epochs must be a whole number from 0, got -1"),
        (("--batch-size", 0), "--batch-size must be a whole number from 1, got 0"),
        (("--keep-at-least", 2), "--keep-at-least must be from 0 to 1"),
        (
            ("--validation", 1),
            "--validation 1.0 of 901 training images leaves a part empty: write ",
        ),
        (("--limit", 2), "--validation 0.1 of 2 training images leaves a part empty: give more"),
        (("--ratio", 1), "a ratio of 1 prunes all 40,208 units, after which the network learns "),
        (("--compression", 1e9), "a ratio of 0.999999999 prunes all 40,208 units"),
        (("--split", "test"), "write --test-split or --test-data"),
        (("--test-data", "digits", "--test-split", "train"), "write --test-split or --test-data"),
        (
            ("--schedule", "iterative", "--rounds", 3, "--rewind", "--regrow", "magnitude"),
            "--rewind does not go with --regrow magnitude",
        ),
        (("--score", "nothing"), "--score must be one of magnitude"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    run: Run, words: tuple[Any, ...], complaint: str
) -> None:
    said = run("retrain", "--epochs", 3, *words)
    assert said.code == 2 and complaint in said.complaint
    assert not list(Path().glob("secateurs-results/*/*.safetensors"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rounds", 3), "--rounds has no effect without --schedule iterative"),
        (
            ("--schedule", "one-shot", "--ramp", 0.9),
            "--ramp has no effect without --schedule cubic",
        ),
        (
            ("--schedule", "one-shot", "--every", 9),
            "--every has no effect without --schedule cubic",
        ),
        (("--temperature", 2), "--temperature has no effect without --distill"),
        (("--seed", 3, "--seeds", 0), "--seed has no effect beside --seeds"),
        (("--dense-epochs", 0, "--dense-lr", 1), "--dense-lr has no effect without --dense-epochs"),
    ],
)
def test_an_option_without_effect_is_said(run: Run, words: tuple[Any, ...], said: str) -> None:
    assert said in run("retrain", "--validation", 0, *words).err  # and nothing is trained


@pytest.mark.parametrize(("arch", "rate"), [("lenet5", 0.02), ("digits", 0.05)])
def test_the_learning_rate_of_the_dense_epochs_suits_the_network(arch: str, rate: float) -> None:
    plan = make_plan(
        RetrainImages(arch=arch), RetrainPruning(), RetrainTraining(), seed=0, amp=False
    )
    assert plan.dense.learning_rate == rate


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--dense-lr", 1e30), 1, "dense epoch 1: the loss became NaN or infinite at step "),
        (("--lr", 1e30), 1, "; the weights of the epoch before are in here/last.safetensors"),
        (
            ("--ratio", 0.9999),
            2,
            " prunes every weight of conv2.weight, after which the network learns nothing: write "
            "--keep-at-least 0.01, so that every layer keeps 1%, or --exclude conv2.weight, or "
            "--scope layer; the trained dense network is --weights here/dense.safetensors",
        ),
    ],
)
def test_a_training_that_fails_says_where_and_keeps_what_was_good(
    run: Run, words: tuple[Any, ...], code: int, complaint: str
) -> None:
    said = run("retrain", "--dense-epochs", 1, "--epochs", 2, "--warmup", 1, *words, "-o", "here")
    assert said.code == code and complaint in said.err.splitlines()[-1]
    for path in Path("here").glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_weights_in_the_folder_of_a_run_are_not_lost_to_another_run(run: Run) -> None:
    words = ("retrain", "--dense-epochs", 0, "--epochs", 1, "--limit", 200, "--seeds", 3)
    assert run(*words, "--output", "here").code == 0
    path = Path("here/seed-3/best.safetensors")
    kept = path.read_bytes()
    said = run(*words, "--weights", path, "--output", "here", "--overwrite")
    assert said.code == 2 and path.read_bytes() == kept
    assert "replace: give another --output" in said.complaint
    assert run(*words, "--weights", path, "--output", "there").code == 0


def test_a_function_needs_no_parameter_pretrained(run: Run, tmp_path: Path) -> None:
    (tmp_path / "retrained_network.py").write_text(OWN)
    words = ("retrain", "--data", "digits", "--dense-epochs", 1, "--epochs", 1, "--limit", 200)
    assert run(*words, "--arch", "retrained_network:plain", "--output", "here").code == 0
    assert read_rows("here", RetrainRow)[0].weights == "as built"
    assert run(*words, "--arch", "retrained_network:chosen", "--output", "there").code == 0
    assert read_rows("there", RetrainRow)[0].weights == "random"
    frozen = run(*words, "--arch", "retrained_network:frozen", "--output", "frozen")
    assert frozen.code == 2 and "no parameter of it requires gradients" in frozen.complaint


def test_reports(run: Run) -> None:
    for folder, ratio in (("a", 0.9), ("b", 0)):
        words = ("--dense-epochs", 1, "--epochs", 1, "--limit", 200, "--output", folder)
        said = run("retrain", *words, "--ratio", ratio)
        assert (
            said.code == 0 and ("masks" in said.err) == Path(folder, "masks.safetensors").exists()
        )
    one = run("report", "a", "--output", "plot")
    assert (one.code, one.err) == (0, "wrote plot.png\nwrote plot.svg\n")
    assert len(re.findall(r"^ +digits-cnn ", one.out, re.MULTILINE)) == 1
    both = run("report", "a", "b/results.csv", "--output", "plot", "--title", "Ours")
    assert run("report", "a", "b", "--markdown").out.count("| digits-cnn |") == 2
    assert len(re.findall(r"^ +digits-cnn ", both.out, re.MULTILINE)) == 2
    assert "Ours" in Path("plot-a.svg").read_text()
    assert run("sweep", "--limit", 10, "--p-prune", 0, "--output", "sweep").code == 0
    mixed = run("report", "a", "sweep")
    assert "a is a retraining and sweep is a sweep; give folders of one kind" in mixed.complaint
