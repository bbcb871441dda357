"""One epoch of a training that prunes, or one final score, with what is needed to repeat it."""

from dataclasses import dataclass
from typing import ClassVar

from secateurs._io.text import quoted
from secateurs.errors import FailureError
from secateurs.results.record import COUNT, RATIO, SIZE, Limits, Record, check_accuracy, check_part

PHASES = ("dense", "retrain", "test dense", "test pruned")
"""The values of `RetrainRow.phase`."""


@dataclass(frozen=True, kw_only=True)
class RetrainRow(Record):
    """An epoch or a final score of `secateurs retrain`; the fields are the columns of results.csv.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        weights: What it started from: a file name, the name of published weights, "random", or "as
            built" for a function of the caller's own.
        seed: Seed of weights, order, augmentation and draws.
        p_prune: Ratio of units that are pruned in the end, 0 to 1.
        schedule: How the ratio grows, such as "cubic over 0.5 of the epochs".
        regrowth: How pruned weights come back: "none", "magnitude" or "gradient".
        distill: Weight of the dense network's probabilities beside the labels, 0 for these alone.
        temperature: Of these probabilities.
        optimizer: With its settings, such as "sgd(momentum=0.9, nesterov)".
        learning_rate: The highest of the phase.
        weight_decay: L2 penalty.
        augment: How training images are changed at random, such as "crop-flip", or "none".
        train_batch_size: Images a step.
        train_count: Images trained on.
        phase: "dense" (an epoch before any pruning), "retrain" (an epoch with masks), "test dense"
            or "test pruned" (the score on images that chose nothing).
        epoch: Number of the epoch in its phase, from 1; of a score, the epoch whose weights it is.
        count: Images that were scored.
        train_loss: Mean loss over the epoch, in nats: cross-entropy, and what `distill` adds; NaN
            for a score.
        top1: Accuracy on `split`, percent.
        achieved: Ratio of prunable weights (elements) that were pruned at the end of the epoch.
        duration: Seconds that it took.
        ranks: Processes that trained together.
        weights_sha256: First 16 hex digits of a SHA-256 over the weights at the end of the epoch.
    """

    KIND: ClassVar[str] = "retraining"
    LAST_ASKED: ClassVar[str] = "split"
    LIMITS: ClassVar[Limits] = {
        **dict.fromkeys(("train_batch_size", "train_count", "epoch", "ranks"), COUNT),
        **dict.fromkeys(("temperature", "weight_decay"), SIZE),
        "distill": RATIO,
    }
    UNLIMITED: ClassVar[frozenset[str]] = frozenset({"train_loss", "loss"})

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

    def _check(self) -> None:
        if self.phase not in PHASES:
            raise FailureError(
                f"column phase of a result row holds {quoted(self.phase)}, which is none of "
                f"{', '.join(PHASES)}"
            )
        check_accuracy(self.top1, self.correct, self.count)
        check_part("kept", self.kept, self.prunable)
