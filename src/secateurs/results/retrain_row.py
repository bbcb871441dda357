"""One epoch of a training that prunes, or one final score, with what is needed to repeat it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from secateurs._io.text import quoted
from secateurs.errors import FailureError
from secateurs.results.record import Record

PHASES = ("dense", "retrain", "test dense", "test pruned")
"""What a row may tell of; see `RetrainRow.phase`."""


@dataclass(frozen=True, kw_only=True)
class RetrainRow(Record):
    """An epoch or a final score of `secateurs retrain`; the fields are the columns of results.csv.

    Attributes:
        model: What was asked for, such as `lenet300`.
        weights: What it started from: a file name, the name of published weights, or "random".
        data: Name of the data set or folder.
        seed: Seed of weights, order, augmentation and draws.
        granularity: "weight", "kernel" or "filter".
        scope: "global", "layer", or "N:M", such as "2:4".
        score: "magnitude", "gradient", "taylor", "random", or the name of a callable.
        layers: Kinds of layers that compete, joined by ";", or "" for the default.
        include: Globs that add weights, joined by ";", or "".
        exclude: Globs that take weights away, joined by ";", or "".
        p_prune: Ratio of units that are pruned in the end, 0 to 1.
        schedule: How the ratio grows, such as "Cubic(0.9, ...)".
        regrowth: How pruned weights come back: "none", "magnitude" or "gradient".
        distill: Weight of the dense network's answers beside the labels, 0 for these alone.
        temperature: Of these answers.
        optimizer: With its settings, such as "sgd(momentum=0.9)".
        learning_rate: The highest of the phase.
        weight_decay: L2 penalty.
        augment: How training images are changed at random, such as "crop-flip", or "none".
        train_batch_size: Images a step.
        train_count: Images trained on.
        preprocess: The whole preprocessing in one line.
        amp: Whether automatic mixed precision was on.
        phase: "dense" (an epoch before any pruning), "retrain" (an epoch with masks), "test dense"
            or "test pruned" (the score on images that chose nothing).
        epoch: Number of the epoch in its phase, from 1; of a score, the epoch whose weights it is.
        split: Which images `top1` is of: "validation", or the split of the test data.
        count: How many they are.
        train_loss: Mean loss over the epoch, in nats: cross-entropy, and what `distill` adds; NaN
            for a score.
        loss: Mean cross-entropy of `split`, in nats; may be infinite or NaN.
        top1: Accuracy on `split`, percent.
        correct: Images right, of `count`.
        achieved: Ratio of prunable weights (elements) that were pruned at the end of the epoch.
        kept: Prunable weights that were kept.
        prunable: Number of prunable weights.
        param_count: Parameters of the model in millions.
        duration: Seconds that it took.
        device: Where it ran, such as "cpu" or "cuda (NVIDIA H100)".
        dtype: Data type of the weights, such as "float32".
        ranks: Processes that trained together.
        weights_sha256: First 16 hex digits of a SHA-256 over the weights at the end of the epoch.
        versions: What it ran with: "secateurs=..;torch=..;python=..".
    """

    KIND: ClassVar[str] = "retraining"

    model: str
    weights: str
    data: str
    seed: int
    granularity: str
    scope: str
    score: str
    layers: str
    include: str
    exclude: str
    p_prune: float
    schedule: str
    regrowth: str
    distill: float = 0.0
    temperature: float = 4.0
    optimizer: str
    learning_rate: float
    weight_decay: float
    augment: str
    train_batch_size: int
    train_count: int
    preprocess: str
    amp: bool
    phase: str
    epoch: int
    split: str
    count: int
    train_loss: float
    loss: float
    top1: float
    correct: int
    achieved: float
    kept: int
    prunable: int
    param_count: float
    duration: float
    device: str
    dtype: str
    ranks: int
    weights_sha256: str
    versions: str

    @classmethod
    def renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row or configuration of a version without distillation, with the columns of now."""
        return {"distill": 0.0, "temperature": 4.0, **values}

    def check(self) -> None:
        """Compare the columns with each other.

        Raises:
            FailureError: They do not agree.
        """
        if self.phase not in PHASES:
            raise FailureError(
                f"column phase of a result row holds {quoted(self.phase)}, which is none of "
                f"{', '.join(PHASES)}"
            )
        expected = 100 * self.correct / max(self.count, 1)
        if self.correct > self.count or abs(self.top1 - expected) > 1e-6:
            raise FailureError(
                f"column top1 of a result row holds {self.top1}, but {self.correct} of "
                f"{self.count} images right give {expected}"
            )
        if self.kept > self.prunable:
            raise FailureError(
                f"column kept of a result row holds {self.kept}, more than the {self.prunable} "
                "weights that there are"
            )


RETRAIN_COLUMNS: tuple[str, ...] = RetrainRow.columns()
"""Names of the columns, in order."""

_COUNT, _SIZE = (0, 2**63 - 1), (0.0, math.inf)
RetrainRow.LIMITS = {
    **dict.fromkeys(("train_batch_size", "train_count", "epoch", "ranks"), _COUNT),
    **dict.fromkeys(("count", "correct", "kept", "prunable"), _COUNT),
    **dict.fromkeys(("p_prune", "distill", "achieved"), (0.0, 1.0)),
    **dict.fromkeys(("temperature", "learning_rate", "weight_decay"), _SIZE),
    **dict.fromkeys(("param_count", "duration"), _SIZE),
    "top1": (0.0, 100.0),
}
RetrainRow.UNLIMITED = frozenset({"train_loss", "loss"})
RetrainRow.ASKED = RETRAIN_COLUMNS[: RETRAIN_COLUMNS.index("split") + 1]
