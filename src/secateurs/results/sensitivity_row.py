"""The row of a sensitivity run: one layer pruned alone, at one ratio."""

from dataclasses import dataclass
from typing import ClassVar

from secateurs.errors import FailureError
from secateurs.results.record import COUNT, PERCENT, ROUNDING, Limits, Record


@dataclass(frozen=True, kw_only=True)
class SensitivityRow(Record):
    """What it costs to prune one layer alone; the fields are the columns of results.csv.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        labels: "data", or "dense" where the dense network's classes count as the labels, so that no
            label was read.
        layer: Name of the parameter that was pruned.
        repair: Steps by which the layer was repaired, joined by ";", or "".
        p_prune: Ratio of the layer's units that are candidates, 0 to 1.
        achieved: Ratio of the layer's weights (elements) that were pruned.
        targets: Number of weights (elements) of the layer.
        units: Number of units of the layer.
        dense_top1: Accuracy of the dense network on the same images, percent.
        change: top1 - dense_top1, points.
        lost: Images that the dense network gets right and this one wrong.
        won: Images that the dense network gets wrong and this one right.
        agreement: Images to which both give the same class, percent.
        dense_loss: That of the dense network.
        divergence: Mean Kullback-Leibler divergence from the dense network's probabilities, nats.
    """

    KIND: ClassVar[str] = "sensitivity run"
    LAST_ASKED: ClassVar[str] = "seed"
    LIMITS: ClassVar[Limits] = {
        **dict.fromkeys(("lost", "won"), COUNT),
        "dense_top1": PERCENT,
        "change": (-100.0, 100.0),
    }
    UNLIMITED: ClassVar[frozenset[str]] = frozenset({"loss", "dense_loss", "divergence"})

    model: str
    weights: str
    weights_sha256: str
    data: str
    split: str
    labels: str
    layer: str
    granularity: str
    score: str
    score_data: str
    repair: str = ""
    calibration: str = ""
    calibration_sha256: str = ""
    calibration_count: int = 0
    p_prune: float
    p_bern: float
    seed: int
    achieved: float
    targets: int
    units: int
    count: int
    top1: float
    dense_top1: float
    change: float
    lost: int
    won: int
    agreement: float
    loss: float
    dense_loss: float
    divergence: float
    param_count: float
    img_size: int
    crop_pct: float
    interpolation: str
    preprocess: str
    batch_size: int
    amp: bool
    device: str
    dtype: str
    duration: float
    versions: str

    def _check(self) -> None:
        expected = 100 * (self.won - self.lost) / max(self.count, 1)
        if max(abs(self.change - expected), abs(self.top1 - self.dense_top1 - expected)) > ROUNDING:
            raise FailureError(
                f"column change of a result row holds {self.change}, but top1 - dense_top1 is "
                f"{self.top1 - self.dense_top1}, and lost and won give {expected}"
            )
