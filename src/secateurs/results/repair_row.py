"""One network of `secateurs repair`: dense, pruned or repaired."""

from dataclasses import dataclass
from typing import ClassVar

from secateurs.results.record import COUNT, RATIO, SIZE, Limits, Record, check_accuracy, check_part


@dataclass(frozen=True, kw_only=True)
class RepairRow(Record):
    """A network after a stage of `secateurs repair`; the fields are the columns of results.csv.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        weights_sha256: First 16 hex digits of a SHA-256 over the dense network's weights.
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
        tighten: Share of the iterations of "distill" over which weights go to zero gradually.
        seed: Of random scores and of the order of images.
        stage: 0 for the dense network, 1 for the pruned one, then one for each pass of the repair.
        steps: "dense", "pruned", or the steps of this pass, joined by ";".
        loss: Divergence from the dense network's outputs on calibration images, nats.
        agreement: Share of these images with the dense network's first class, percent.
        data: Name of the labelled images that were scored, for reporting only, or "".
        count: Labelled images scored; 0 for none.
        top1: Accuracy on them, percent; None for none.
        correct: Images right, of `count`; None for none.
        duration: Seconds that the stage took, without scoring.
        result_sha256: First 16 hex digits of a SHA-256 over the weights after the stage.
    """

    KIND: ClassVar[str] = "repair"
    LAST_ASKED: ClassVar[str] = "steps"
    LIMITS: ClassVar[Limits] = {
        **dict.fromkeys(("iterations", "distill_batch_size", "stage"), COUNT),
        **dict.fromkeys(("damping", "features"), SIZE),
        "tighten": RATIO,
    }
    UNLIMITED: ClassVar[frozenset[str]] = frozenset({"loss"})

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

    def _check(self) -> None:
        check_accuracy(self.top1, self.correct, self.count)
        check_part("kept", self.kept, self.prunable)
