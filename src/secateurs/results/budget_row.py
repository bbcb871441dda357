"""The row of a budget: one ratio that was tried, compared with the dense network."""

from dataclasses import dataclass
from typing import ClassVar

from secateurs.errors import FailureError
from secateurs.results.record import COUNT, PERCENT, ROUNDING, Limits, Record, check_part


@dataclass(frozen=True, kw_only=True)
class BudgetRow(Record):
    """A network that was tried for a budget; the fields are the columns of results.csv.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        weights_sha256: First 16 hex digits of a SHA-256 over the dense network's weights.
        seed: Of random scores; None where none was given.
        repair: Steps of the repair after the pruning, joined by ";".
        max_drop: The drop that was to be excluded, points.
        confidence: Of the claim, all networks that were tried together.
        images: Images that there are.
        count: Images that this network was scored on; fewer where the others could not save it.
        dense_top1: Accuracy of the dense network on all images, percent.
        lost: Images of ``count`` that the dense network gets right and this one wrong.
        won: Images of ``count`` that it gets wrong and this one right.
        drop: Accuracy of the dense network minus that of this one on ``count`` images, points.
        drop_high: The upper limit of the drop at this confidence, points.
        passed: Whether the claim holds for this network.
        needed: About how many images would show the claim if all flip as these did; None where it
            holds, and where these images do not say so much.
        achieved: Ratio of prunable weights that are zero; None but for the network that was chosen.
    """

    KIND: ClassVar[str] = "budget"
    LAST_ASKED: ClassVar[str] = "p_prune"
    LIMITS: ClassVar[Limits] = {
        **dict.fromkeys(("images", "lost", "won", "needed"), COUNT),
        **dict.fromkeys(("dense_top1", "max_drop", "drop_high"), PERCENT),
        "confidence": (0.0, 1.0),
        "drop": (-100.0, 100.0),
    }

    model: str
    weights: str
    weights_sha256: str
    data: str
    split: str
    granularity: str
    scope: str
    score: str
    layers: str
    include: str
    exclude: str
    seed: int | None
    repair: str
    calibration: str
    calibration_sha256: str
    calibration_count: int
    max_drop: float
    confidence: float
    images: int
    p_prune: float
    count: int
    dense_top1: float
    lost: int
    won: int
    drop: float
    drop_high: float
    passed: bool
    needed: int | None
    achieved: float | None
    param_count: float
    img_size: int
    crop_pct: float
    interpolation: str
    preprocess: str
    batch_size: int
    amp: bool
    device: str
    dtype: str
    versions: str

    def _check(self) -> None:
        check_part("count", self.count, self.images, "images")
        check_part("lost", self.lost + self.won, self.count, "images")
        expected = 100 * (self.lost - self.won) / max(self.count, 1)
        if abs(self.drop - expected) > ROUNDING:
            raise FailureError(
                f"column drop of a result row holds {self.drop}, but lost and won of {self.count} "
                f"images give {expected}"
            )
