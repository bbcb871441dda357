import importlib.util
import json
import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repair_rows import make_repair_row
from result_rows import make_row
from retrain_rows import ROW
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.report.trackers import open_tracker, points_of
from secateurs.results import Results, RetrainRow
from sensitivity_rows import make_sensitivity_row
from speed_rows import make_speed_row
from transfer_rows import make_transfer_row

EPOCH = replace(
    ROW, phase="retrain", split="validation", top1=91.0, correct=91, count=100, train_loss=0.5,
    achieved=0.7,
)  # fmt: skip
EPOCHS = [
    replace(EPOCH, epoch=1),
    replace(EPOCH, epoch=2, top1=93.0, correct=93, loss=math.inf),
]


def test_the_points_of_each_kind_of_rows() -> None:
    sweep = points_of([make_row(0.0, 80), make_row(0.5, 60)])
    assert [(step, values["resnet18/top1"]) for step, values in sweep] == [(0, 80.0), (50, 60.0)]
    first, second = points_of(EPOCHS)
    assert first[0] == 1 and first[1]["retrain/top1 seed 0"] == 91.0
    assert first[1]["retrain/train_loss seed 0"] == 0.5
    assert "retrain/loss seed 0" not in second[1], "an infinite loss is no point of a curve"
    ((step, values),) = points_of([make_speed_row(0.8, 2.0)])
    assert step == 80 and values["batch 1 threads 1/speedup"] == 2.0
    ((step, values),) = points_of([make_sensitivity_row("conv1", 0.5, top1=80.0)])
    assert step == 50 and values["conv1/top1"] == 80.0
    ((step, values),) = points_of([make_transfer_row("0110", step=20, target="timm:a")])
    assert step == 20
    assert values["plain seed 0/timm_lite0 to timm_a/targeted"] == 50.0


def test_the_points_of_rows_of_layers_and_of_stages() -> None:
    layer = [make_sensitivity_row("conv.weight", ratio) for ratio in (0.5, 0.9)]
    assert [step for step, _ in points_of(layer)] == [50, 90]
    assert points_of(layer)[0][1]["conv.weight/divergence"] == 0.2
    stages = [make_repair_row(1, loss=0.5, top1=None), make_repair_row(2, loss=0.25, top1=0.0)]
    assert points_of(stages) == [
        (1, {"loss": 0.5, "agreement": 0.0, "achieved": 0.0}),
        (2, {"loss": 0.25, "agreement": 0.0, "top1": 0.0, "achieved": 0.0}),
    ]


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_tracker("tensorboard", tmp_path, {"arch": "small"}) as log:
        for row in EPOCHS:
            log([row])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = events.Scalars("retrain/top1 seed 0")
    assert [(each.step, each.value) for each in found] == [(1, 91.0), (2, 93.0)]
    assert "configuration/text_summary" in events.Tags()["tensors"]


LOGGING = """
import sys
from secateurs.report.trackers import open_tracker
from secateurs.results import read_any_rows
with open_tracker(sys.argv[1], "run", {"arch": "small"}) as log:
    for row in read_any_rows("run"):
        log([row])
"""


def log_in_a_process(tracker: str, folder: Path, **settings: str) -> str:
    """Log rows in a process of its own, since trackers read their settings once; returns stdout."""
    with Results(folder / "run", RetrainRow) as results:
        results.add_all(EPOCHS)
    done = subprocess.run(
        [sys.executable, "-c", LOGGING, tracker],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_trackio(tmp_path: Path) -> None:
    assert log_in_a_process("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio")) == ""
    with closing(sqlite3.connect(tmp_path / "trackio" / "secateurs.db")) as database:
        found = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step")
        rows = [(name, step, json.loads(values)) for name, step, values in found]
    assert [(name, step) for name, step, _ in rows] == [("run", 1), ("run", 2)]
    assert [values["retrain/top1 seed 0"] for *_, values in rows] == [91.0, 93.0]


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")
def test_mlflow(tmp_path: Path) -> None:
    uri = (tmp_path / "mlruns").as_uri()
    log_in_a_process("mlflow", tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_ALLOW_FILE_STORE="true")
    (found,) = tmp_path.glob("mlruns/*/*/metrics/retrain/top1 seed 0")
    assert [line.split()[1:] for line in found.read_text().splitlines()] == [
        ["91.0", "1"],
        ["93.0", "2"],
    ]


@pytest.mark.parametrize(
    ("tracker", "said"), [("comet", "give one of tensorboard, trackio"), ("wandb", "needs wandb")]
)
def test_a_tracker_that_is_not_there(tmp_path: Path, tracker: Any, said: str) -> None:
    if tracker == "wandb" and importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises((InvalidArgumentError, FailureError), match=said):
        open_tracker(tracker, tmp_path).__enter__()


def test_a_tracker_that_cannot_begin(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where its folder goes")
    with pytest.raises(FailureError, match="tensorboard cannot begin a run: "):
        open_tracker("tensorboard", tmp_path).__enter__()
