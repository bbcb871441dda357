"""One network of `secateurs repair`: dense, pruned or repaired."""

import math
from dataclasses import dataclass
from typing import ClassVar

from secateurs.errors import FailureError
from secateurs.results.record import Record


@dataclass(frozen=True, kw_only=True)
class RepairRow(Record):
    """A network after a stage of `secateurs repair`; the fields are the columns of results.csv.

    Attributes:
        model: What was asked for, such as `timm:tf_efficientnet_lite0`.
        weights: Name of the weights: a published name or a file name.
        weights_sha256: First 16 hex digits of a SHA-256 over the dense network's weights.
        calibration: Name of the images, without labels, that the repair used.
        calibration_sha256: First 16 hex digits of a SHA-256 over them as the network took them.
        calibration_count: How many they are.
        preprocess: The whole preprocessing in one line.
        granularity: "weight", "kernel" or "filter".
        scope: Who competes with whom: "global" or "layer".
        score: Name of the criterion.
        layers: Kinds of layers that compete, joined by ";", or "" for the default.
        include: Globs of the weights that compete, joined by ";", or "".
        exclude: Globs of weights that do not compete, joined by ";", or "".
        allocation: How many units each layer loses: "" (what the scope gives), "global",
            "uniform", "erk", or "file" and a checksum of the file of ratios.
        keep_at_least: Ratio of its units that each layer keeps at least.
        p_prune: Ratio of units that are pruned; None where a file gives those of the layers.
        repair: All steps, joined by ";".
        damping: Of the step "reconstruct".
        iterations: Of the step "distill", at most.
        learning_rate: Of the step "distill", at its highest.
        distill_batch_size: Images for each step of "distill".
        features: Weight of the error of some layers' outputs in "distill".
        augment: How "distill" changes images at random: "auto", "crop-flip", "shift" or "none".
        tighten: Share of the iterations of "distill" over which weights go little by little.
        batch_size: How many images ran at once.
        seed: Of random scores and of the order of images.
        stage: 0 for the dense network, 1 for the pruned one, then one for each pass of the repair.
        steps: "dense", "pruned", or the steps of this pass, joined by ";".
        loss: Divergence from the dense network's outputs on calibration images, nats.
        agreement: Share of these images with the dense network's first class, percent.
        data: Name of the labelled images that were scored, for reporting only, or "".
        split: Split of the data, or "".
        count: Labelled images scored; 0 for none.
        top1: Accuracy on them, percent; None for none.
        correct: Images right, of `count`; None for none.
        achieved: Ratio of prunable weights (elements) that are zero.
        kept: Prunable weights that are kept.
        prunable: Number of prunable weights.
        param_count: Parameters of the model in millions.
        duration: Seconds that the stage took, without scoring.
        result_sha256: First 16 hex digits of a SHA-256 over the weights after the stage.
        device: Where it ran, such as "cpu" or "cuda (NVIDIA H100)".
        dtype: Data type of the weights, such as "float32".
        versions: What it ran with: "secateurs=..;torch=..;python=..".
    """

    KIND: ClassVar[str] = "repair"

    model: str
    weights: str
    weights_sha256: str
    calibration: str
    calibration_sha256: str
    calibration_count: int
    preprocess: str
    granularity: str
    scope: str
    score: str
    layers: str
    include: str
    exclude: str
    allocation: str
    keep_at_least: float
    p_prune: float | None
    repair: str
    damping: float
    iterations: int
    learning_rate: float
    distill_batch_size: int
    features: float
    augment: str
    tighten: float
    batch_size: int
    seed: int
    stage: int
    steps: str
    loss: float
    agreement: float
    data: str
    split: str
    count: int
    top1: float | None
    correct: int | None
    achieved: float
    kept: int
    prunable: int
    param_count: float
    duration: float
    result_sha256: str
    device: str
    dtype: str
    versions: str

    def check(self) -> None:
        """Compare the columns with each other.

        Raises:
            FailureError: They do not agree.
        """
        correct = self.correct or 0
        expected = 100 * correct / max(self.count, 1)
        if correct > self.count or abs((self.top1 or 0.0) - expected) > 1e-6:
            raise FailureError(
                f"column top1 of a result row holds {self.top1}, but {self.correct} of "
                f"{self.count} images right give {expected}"
            )
        if self.kept > self.prunable:
            raise FailureError(
                f"column kept of a result row holds {self.kept}, more than the {self.prunable} "
                "weights that there are"
            )


REPAIR_COLUMNS: tuple[str, ...] = RepairRow.columns()
"""Names of the columns, in order."""

_COUNT, _SIZE, _PERCENT = (0, 2**63 - 1), (0.0, math.inf), (0.0, 100.0)
RepairRow.LIMITS = {
    **dict.fromkeys(("calibration_count", "iterations", "batch_size", "stage"), _COUNT),
    "distill_batch_size": _COUNT,
    **dict.fromkeys(("count", "correct", "kept", "prunable"), _COUNT),
    **dict.fromkeys(("keep_at_least", "p_prune", "achieved", "tighten"), (0.0, 1.0)),
    **dict.fromkeys(("damping", "learning_rate", "features", "param_count", "duration"), _SIZE),
    **dict.fromkeys(("agreement", "top1"), _PERCENT),
}
RepairRow.UNLIMITED = frozenset({"loss"})
RepairRow.ASKED = REPAIR_COLUMNS[: REPAIR_COLUMNS.index("steps") + 1]
