"""Rows in an experiment tracker: TensorBoard, trackio, Weights & Biases or MLflow."""

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from secateurs.errors import FailureError, InvalidArgumentError, require
from secateurs.report.series import split_series
from secateurs.results import (
    BudgetRow,
    Record,
    RepairRow,
    RetrainRow,
    Row,
    SensitivityRow,
    SpeedRow,
    TransferRow,
)

TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow"]
PROJECT = "secateurs"
"""The project or the experiment that the runs belong to."""

Point = tuple[int, dict[str, float]]
"""A step, and the numbers at it by name."""

Log = Callable[[int, Mapping[str, float]], object]

_ODD = re.compile(r"[^\w\-. /]+", re.ASCII)
"""What some tracker does not take in the name of a number."""


@contextmanager
def open_tracker(
    name: TrackerName,
    folder: str | os.PathLike[str],
    config: Mapping[str, Any] | None = None,
) -> Generator[Callable[[Iterable[Record]], None]]:
    """Begin a run in a tracker, through the tracker's own package.

    TensorBoard's files go into the folder; the others decide where theirs go by their own settings
    (TRACKIO_DIR, WANDB_MODE, MLFLOW_TRACKING_URI).

    Args:
        name: "tensorboard", "trackio", "wandb" or "mlflow".
        folder: The folder of the run's results; its name becomes the run's.
        config: What the run was asked for.

    Yields:
        A function that logs rows; a row of a retraining may come as soon as its epoch is finished.

    If the tracker fails later, a warning says so, and later rows are not logged: long work goes on.

    Raises:
        InvalidArgumentError: There is no such tracker.
        FailureError: Its package is not installed, or it cannot begin a run.

    Example:
        >>> from secateurs.results import read_rows
        >>> with open_tracker("tensorboard", "results/resnet18") as log:  # doctest: +SKIP
        ...     log(read_rows("results/resnet18"))
    """
    if name not in get_args(TrackerName):
        raise InvalidArgumentError(
            f"there is no tracker {name!r}; give one of {', '.join(get_args(TrackerName))}"
        )
    require(name, f"logging to {name}", extra=name)
    texts = {key: str(value) for key, value in (config or {}).items()}
    with ExitStack() as stack:
        try:
            log = stack.enter_context(_OPENERS[name](Path(folder), texts))
        except Exception as error:  # another package's, which may raise anything
            raise FailureError(f"{name} cannot begin a run: {_reason(error)}") from error
        failed: list[Exception] = []

        def log_rows(rows: Iterable[Record]) -> None:
            for step, values in points_of(list(rows)) if not failed else ():
                try:
                    log(step, values)
                except Exception as error:
                    failed.append(error)
                    warnings.warn(f"{name} takes no more: {_reason(error)}", stacklevel=2)
                    return

        yield log_rows


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@dataclass(frozen=True)
class _Numbers:
    """Which numbers of a row a tracker shows, at which step, and what it calls each of them."""

    columns: Sequence[str]
    step: Callable[[Any], float]
    called: Callable[[Any, str], str] = lambda row, column: column  # noqa: ARG005


_SWEEP = ("top1", "top1_low", "top1_high", "top5", "loss", "achieved")
_NUMBERS: Mapping[type[Record], _Numbers] = {
    RetrainRow: _Numbers(
        ("top1", "loss", "achieved", "train_loss"),
        lambda row: row.epoch,
        lambda row, column: f"{row.phase}/{column} seed {row.seed}",
    ),
    TransferRow: _Numbers(
        ("targeted", "untargeted"),
        lambda row: row.step,
        lambda row, column: (
            f"{row.variant} seed {row.seed}/{row.surrogates or 'no surrogate'} to "
            f"{row.target}/{column}"
        ),
    ),
    RepairRow: _Numbers(("loss", "agreement", "top1", "achieved"), lambda row: row.stage),
    SpeedRow: _Numbers(
        ("rate", "dense_rate", "speedup"),
        lambda row: 100 * row.achieved,
        lambda row, column: f"batch {row.batch_size} threads {row.threads}/{column}",
    ),
    SensitivityRow: _Numbers(
        ("top1", "change", "loss", "agreement", "divergence"),
        lambda row: 100 * row.p_prune,
        lambda row, column: f"{row.layer}/{column}",
    ),
    BudgetRow: _Numbers(
        ("drop", "drop_high", "lost", "won", "count"), lambda row: 100 * row.p_prune
    ),
}


def points_of(rows: Sequence[Record]) -> list[Point]:
    """The numbers that a tracker shows of rows.

    The step is, of a sweep, of sensitivity and of a budget, the ratio asked for in percent; of a
    retraining the epoch of its phase; of a transfer the step of the attack; of a repair its stage;
    of speed the ratio of zeros in percent. Numbers that are missing, infinite or NaN are left out.
    """
    sweeps = split_series([row for row in rows if isinstance(row, Row)])
    points = [
        _point(100 * row.p_prune, {f"{series.label}/{n}": getattr(row, n) for n in _SWEEP})
        for series in sweeps
        for row in series.rows
    ]
    for row in rows:
        one = _NUMBERS.get(type(row))
        if one is not None:
            values = {one.called(row, name): getattr(row, name) for name in one.columns}
            points.append(_point(one.step(row), values))
    return points


def _point(step: float, values: Mapping[str, float | None]) -> Point:
    known = {name: value for name, value in values.items() if value is not None}
    return round(step), {_ODD.sub("_", n): float(v) for n, v in known.items() if math.isfinite(v)}


@contextmanager
def _tensorboard(folder: Path, config: Mapping[str, str]) -> Generator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:
        if config:
            lines = "\n".join(f"    {name}: {value}" for name, value in config.items())
            writer.add_text("configuration", lines)

        def log(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield log


@contextmanager
def _trackio(folder: Path, config: Mapping[str, str]) -> Generator[Log]:
    trackio: Any = import_module("trackio")

    with redirect_stdout(sys.stderr):  # it prints, and stdout is for results
        trackio.init(project=PROJECT, name=folder.resolve().name, config=dict(config))
    try:
        yield lambda step, values: trackio.log(dict(values), step=step)
    finally:
        with redirect_stdout(sys.stderr):
            trackio.finish()


@contextmanager
def _wandb(folder: Path, config: Mapping[str, str]) -> Generator[Log]:
    wandb: Any = import_module("wandb")
    run: Any = wandb.init(
        project=PROJECT, name=folder.resolve().name, config=dict(config), dir=str(folder)
    )
    with run:
        # wandb drops a step that is below an earlier one; as a value it may be any.
        run.define_metric("*", step_metric="step")
        yield lambda step, values: run.log({"step": step, **values})


@contextmanager
def _mlflow(folder: Path, config: Mapping[str, str]) -> Generator[Log]:
    mlflow: Any = import_module("mlflow")
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=folder.resolve().name):
        mlflow.log_params({name: value[:500] for name, value in config.items()})
        yield lambda step, values: mlflow.log_metrics(dict(values), step=step)


_OPENERS: Mapping[str, Callable[[Path, Mapping[str, str]], Any]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
