"""Measure pruned models: `sweep` scores all ratios in one loop over the data.

`speed_sweep` measures how fast they are, dense and accelerated.
"""

from secateurs.evaluation._speed_sweep import SpeedGrid, speed_sweep
from secateurs.evaluation._sweep import Provenance, sweep
from secateurs.evaluation.gradients import accumulate_gradients
from secateurs.evaluation.grid import Grid
from secateurs.evaluation.metrics import Tally, accuracy
from secateurs.outputs import logits_of

__all__ = [
    "Grid",
    "Provenance",
    "SpeedGrid",
    "Tally",
    "accumulate_gradients",
    "accuracy",
    "logits_of",
    "speed_sweep",
    "sweep",
]
