"""The row of a sensitivity run: one layer pruned alone, at one ratio."""

import math
from dataclasses import dataclass
from typing import ClassVar

from secateurs.errors import FailureError
from secateurs.results.record import Record


@dataclass(frozen=True, kw_only=True)
class SensitivityRow(Record):
    """What it costs to prune one layer alone; the fields are the columns of results.csv.

    Attributes:
        model: What was asked for, such as `torchvision:resnet18`.
        weights: Name of the weights: an enum name, a file name, or "pretrained".
        weights_sha256: First 16 hex digits of a SHA-256 over the weights' contents.
        data: Name of the data set or folder.
        split: Split of the data, such as "val", or "".
        labels: "data", or "dense" where the dense network's classes stand for the labels, so that
            no label was read.
        layer: Name of the parameter that was pruned.
        granularity: "weight", "kernel" or "filter".
        score: "magnitude", "gradient", "taylor", "random", or the name of a callable.
        score_data: Images whose gradients the scores used, or "".
        p_prune: Ratio of the layer's units that are candidates, 0 to 1.
        p_bern: Probability with which each candidate is pruned, 0 to 1.
        seed: Seed of the draw.
        achieved: Ratio of the layer's weights (elements) that were pruned.
        targets: Number of weights (elements) of the layer.
        units: Number of units of the layer.
        count: Images scored.
        top1: Accuracy in percent.
        dense_top1: Accuracy of the dense network on the same images, percent.
        change: top1 - dense_top1, points.
        lost: Images that the dense network gets right and this one wrong.
        won: Images that the dense network gets wrong and this one right.
        agreement: Images to which both give the same class, percent.
        loss: Mean cross-entropy in nats; may be NaN or infinite where pruning broke the network.
        dense_loss: That of the dense network.
        divergence: Mean Kullback-Leibler divergence from the dense network's probabilities, nats.
        param_count: Parameters of the model in millions.
        img_size: Side of the input in pixels.
        crop_pct: Side of the crop divided by the side of the resized image.
        interpolation: How images were resized, such as "bicubic".
        preprocess: The whole preprocessing in one line.
        batch_size: Images a batch.
        amp: Whether automatic mixed precision was on.
        device: Where it ran, such as "cpu" or "cuda (NVIDIA H100)".
        dtype: Data type of the weights, such as "float32".
        duration: Seconds that the measurement took.
        versions: Versions of the software: "secateurs=..;torch=..;python=..".
    """

    KIND: ClassVar[str] = "sensitivity run"

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

    def check(self) -> None:
        """Compare the images that flip with the change of accuracy.

        Raises:
            FailureError: They do not agree.
        """
        expected = 100 * (self.won - self.lost) / max(self.count, 1)
        if max(abs(self.change - expected), abs(self.top1 - self.dense_top1 - expected)) > 1e-6:
            raise FailureError(
                f"column change of a result row holds {self.change}, but top1 - dense_top1 is "
                f"{self.top1 - self.dense_top1}, and lost and won give {expected}"
            )


_COUNT, _PERCENT, _RATIO, _SIZE = (0, 2**63 - 1), (0.0, 100.0), (0.0, 1.0), (0.0, math.inf)
SensitivityRow.LIMITS = {
    **dict.fromkeys(("targets", "units", "count", "lost", "won", "img_size"), _COUNT),
    **dict.fromkeys(("p_prune", "p_bern", "achieved"), _RATIO),
    **dict.fromkeys(("top1", "dense_top1", "agreement"), _PERCENT),
    **dict.fromkeys(("crop_pct", "param_count", "duration", "batch_size"), _SIZE),
    "change": (-100.0, 100.0),
}
SensitivityRow.UNLIMITED = frozenset({"loss", "dense_loss", "divergence"})
SensitivityRow.ASKED = SensitivityRow.columns()[: SensitivityRow.columns().index("seed") + 1]
