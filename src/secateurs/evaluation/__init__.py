"""Measure the accuracy of pruned models: `sweep` scores all ratios in one loop over the data."""

from secateurs.evaluation._sweep import Provenance, sweep
from secateurs.evaluation.gradients import accumulate_gradients
from secateurs.evaluation.grid import Grid
from secateurs.evaluation.metrics import Tally, accuracy
from secateurs.outputs import logits_of

__all__ = [
    "Grid",
    "Provenance",
    "Tally",
    "accumulate_gradients",
    "accuracy",
    "logits_of",
    "sweep",
]
