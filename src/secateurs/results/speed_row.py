"""How fast a pruned network is, dense and accelerated, with what is needed to repeat it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from secateurs.errors import FailureError
from secateurs.results.record import Record

PAYS = 1.02
"""An accelerated network that is at least so many times as fast as dense is faster."""


@dataclass(frozen=True, kw_only=True)
class SpeedRow(Record):
    """One measurement of `secateurs speed`; the fields are the columns of results.csv.

    Attributes:
        model: What was asked for, such as `timm:resnet18`.
        weights: A file name, the name of published weights, or "random".
        input_size: Size of the input without the number of images, such as "3x224x224".
        granularity: "weight", "kernel" or "filter".
        scope: "global" or "layer".
        score: Name of the criterion.
        layers: Kinds of layers that compete, joined by ";", or "" for the default.
        include: Globs that add weights, joined by ";", or "".
        exclude: Globs that take weights away, joined by ";", or "".
        p_prune: Ratio of units that were pruned, 0 to 1; 0 leaves the zeros that were there.
        seed: Of the criterion "random".
        batch_size: Images that were run at once.
        threads: Threads of the CPU.
        device: Where it ran, such as "cpu" or "cuda (NVIDIA H100)".
        achieved: Ratio of prunable weights that were zero.
        prunable: Number of prunable weights.
        param_count: Parameters of the model in millions.
        dense_seconds: Median seconds of a batch, dense.
        seconds: Median seconds of a batch, accelerated.
        replaced: Layers that were not computed dense.
        found: Layers that could have been replaced.
        processor: Name of the processor.
        dtype: Data type of the weights, such as "float32".
        weights_sha256: First 16 hex digits of a SHA-256 over the weights before they were pruned.
        versions: What it ran with: "secateurs=..;torch=..;python=..".
    """

    KIND: ClassVar[str] = "speed measurement"

    model: str
    weights: str
    input_size: str
    granularity: str
    scope: str
    score: str
    layers: str
    include: str
    exclude: str
    p_prune: float
    seed: int
    batch_size: int
    threads: int
    device: str
    achieved: float
    prunable: int
    param_count: float
    dense_seconds: float
    seconds: float
    replaced: int
    found: int
    processor: str
    dtype: str
    weights_sha256: str
    versions: str

    @property
    def dense_rate(self) -> float:
        """Images a second, dense."""
        return self.batch_size / self.dense_seconds

    @property
    def rate(self) -> float:
        """Images a second, accelerated."""
        return self.batch_size / self.seconds

    @property
    def speedup(self) -> float:
        """How many times as fast as dense."""
        return self.dense_seconds / self.seconds

    def check(self) -> None:
        """Compare the columns with each other.

        Raises:
            FailureError: They do not agree.
        """
        if self.replaced > self.found:
            raise FailureError(
                f"column replaced of a result row holds {self.replaced}, more than the "
                f"{self.found} layers that there are"
            )


def break_even(rows: Sequence[SpeedRow]) -> float | None:
    """The least ratio of zeros from which on every measured ratio is faster than dense.

    Args:
        rows: Of one network, batch size and number of threads.

    Returns:
        The ratio; None if the highest ratio is not faster.
    """
    found = None
    for row in sorted(rows, key=lambda row: row.achieved, reverse=True):
        if row.speedup < PAYS:
            break
        found = row.achieved
    return found


SPEED_COLUMNS: tuple[str, ...] = SpeedRow.columns()
"""Names of the columns, in order."""

_LEAST = 1e-12  # seconds
SpeedRow.LIMITS = {
    **dict.fromkeys(("p_prune", "achieved"), (0.0, 1.0)),
    **dict.fromkeys(("batch_size", "threads"), (1, 2**63 - 1)),
    **dict.fromkeys(("prunable", "replaced", "found"), (0, 2**63 - 1)),
    **dict.fromkeys(("dense_seconds", "seconds"), (_LEAST, math.inf)),
    "param_count": (0.0, math.inf),
}
SpeedRow.ASKED = SPEED_COLUMNS[: SPEED_COLUMNS.index("device") + 1]
