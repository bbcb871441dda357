"""The row of a sweep: one result, with all that is needed to produce it again."""

import re
from dataclasses import dataclass
from typing import ClassVar

from secateurs.errors import FailureError
from secateurs.results.record import COUNT, PERCENT, ROUNDING, SIZE, Limits, Record


@dataclass(frozen=True, kw_only=True)
class Row(Record):
    """One measured configuration; the fields are the columns of results.csv, in this order.

    Columns that timm's result tables have keep timm's names (model, top1, top1_err, top5,
    top5_err, loss, param_count, img_size, crop_pct, interpolation, infer_samples_per_sec).

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        count: Images scored.
        score_data: Images whose gradients the scores used, or "".
        repair: Steps by which the pruned network was repaired, joined by ";", or "".
        draws: Number of Bernoulli draws that were averaged.
        seed: Seed of the first draw, or None.
        achieved: Ratio of prunable weights (elements) that were pruned, mean over the draws.
        top1: Accuracy in percent, mean over the draws.
        top1_err: 100 - top1.
        top1_low: Lower end of the 95% interval of top1, percent.
        top1_high: Upper end of the 95% interval of top1, percent.
        top1_std: Standard deviation of top1 over the draws, percent; 0.0 for one draw.
        top5: Accuracy among the five highest logits, percent.
        top5_err: 100 - top5.
        correct1: Images whose true class has the highest logit, one count a draw, joined by ";".
        correct5: Images whose true class has one of the five highest logits, likewise.
        infer_samples_per_sec: Images scored a second.
    """

    KIND: ClassVar[str] = "sweep"
    LAST_ASKED: ClassVar[str] = "seed"
    ALSO_ASKED: ClassVar[tuple[str, ...]] = (
        *("img_size", "crop_pct", "interpolation", "preprocess", "amp", "dtype"),
    )
    LIMITS: ClassVar[Limits] = {
        "draws": COUNT,
        **dict.fromkeys(("top1_low", "top1_high", "top1_err", "top5", "top5_err"), PERCENT),
        **dict.fromkeys(("top1_std", "infer_samples_per_sec"), SIZE),
    }
    UNLIMITED: ClassVar[frozenset[str]] = frozenset({"loss"})

    model: str
    weights: str
    weights_sha256: str
    data: str
    split: str
    count: int
    prune_type: str
    granularity: str
    scope: str
    score: str
    score_data: str
    layers: str
    include: str
    exclude: str
    repair: str = ""
    calibration: str = ""
    calibration_sha256: str = ""
    calibration_count: int = 0
    p_prune: float
    p_bern: float
    draws: int
    seed: int | None
    achieved: float
    targets: int
    units: int
    top1: float
    top1_err: float
    top1_low: float
    top1_high: float
    top1_std: float
    top5: float
    top5_err: float
    loss: float
    correct1: str
    correct5: str
    param_count: float
    img_size: int
    crop_pct: float
    interpolation: str
    preprocess: str
    batch_size: int
    amp: bool
    device: str
    dtype: str
    infer_samples_per_sec: float
    duration: float
    versions: str

    def _check(self) -> None:
        for counts, percent in (("correct1", "top1"), ("correct5", "top5")):
            parts: list[str] = getattr(self, counts).split(";")
            whole = all(_DIGITS.fullmatch(part) for part in parts)
            if not whole or any(int(part) > self.count for part in parts):
                raise FailureError(
                    f"column {counts} of a result row disagrees with the count of {self.count} "
                    "images: it must hold a whole number a draw, none above that"
                )
            expected = 100 * sum(map(int, parts)) / len(parts) / max(self.count, 1)
            if abs(getattr(self, percent) - expected) > ROUNDING:
                raise FailureError(
                    f"column {percent} of a result row holds {getattr(self, percent)}, but "
                    f"{counts} gives {expected}"
                )


_DIGITS = re.compile(r"[0-9]{1,19}")
