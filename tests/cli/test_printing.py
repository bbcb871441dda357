import importlib.util
import json

import pytest
from command_line import RANDOM, Run


def test_quiet_json(run: Run) -> None:
    said = run(*RANDOM, "--p-prune", "0", "0.5", "--json", "--quiet", "-o", "out")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert (found["command"], found["folder"]) == ("sweep", "out")
    assert [row["p_prune"] for row in found["rows"]] == [0.0, 0.5]
    assert {"results.csv", "config.json", "layers.jsonl", "sweep.png"} <= set(found["files"])


def test_json_moves_the_table_to_stderr(run: Run) -> None:
    said = run(*RANDOM, "--p-prune", "0", "0.5", "--json", "-o", "out")
    assert said.code == 0 and json.loads(said.out)["rows"]
    assert "top-1" in said.err and "wrote results.csv" in said.err


def test_quiet_still_says_what_is_wrong(run: Run) -> None:
    said = run("sweep", "--quiet", "--p-prune", "2")
    assert said.code == 2 and "p-prune" in said.complaint


def test_a_retraining_is_logged_and_summed_up(run: Run) -> None:
    short = ("--epochs", "1", "--dense-epochs", "1", "--limit", "100", "--batch-size", "20")
    said = run("retrain", *short, "--ratio", "0.5", "--schedule", "one-shot", "--json", "-o", "out",
               "--log-to", "tensorboard")  # fmt: skip
    assert said.code == 0, said.err
    assert [row["phase"] for row in json.loads(said.out)["rows"]] == ["test dense", "test pruned"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("out/tensorboard")
    events.Reload()
    assert len(events.Scalars("dense/top1 seed 0")) == 1
    assert "test pruned/top1 seed 0" in events.Tags()["scalars"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_refused_at_once(run: Run) -> None:
    said = run(*RANDOM, "--log-to", "wandb", "-o", "out")
    assert said.code == 1
    assert "logging to wandb needs wandb: pip install 'secateurs[wandb]'" in said.complaint
