"""How fast a pruned network is, dense and accelerated, with what is needed to repeat it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from secateurs.results.record import COUNT, Limits, Record, check_part

PAYS = 1.02
"""How many times as fast as dense a network must be to count as faster."""

_LEAST = 1e-12  # seconds


@dataclass(frozen=True, kw_only=True)
class SpeedRow(Record):
    """One measurement of `secateurs speed`; the fields are the columns of results.csv.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        input_size: Size of the input without the number of images, such as "3x224x224".
        p_prune: Ratio of units that were pruned, 0 to 1; 0 leaves the zeros that were there.
        seed: Of the criterion "random".
        threads: Threads of the CPU.
        achieved: Ratio of prunable weights that were zero.
        dense_seconds: Median seconds of a batch, dense.
        seconds: Median seconds of a batch, accelerated.
        replaced: Layers that were not computed dense.
        found: Layers that could have been replaced.
        processor: Name of the processor.
    """

    KIND: ClassVar[str] = "speed measurement"
    LAST_ASKED: ClassVar[str] = "device"
    LIMITS: ClassVar[Limits] = {
        **dict.fromkeys(("batch_size", "threads"), (1, COUNT[1])),
        **dict.fromkeys(("replaced", "found"), COUNT),
        **dict.fromkeys(("dense_seconds", "seconds"), (_LEAST, math.inf)),
    }

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

    def _check(self) -> None:
        check_part("replaced", self.replaced, self.found, "layers")


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
