"""How accuracy falls as weights go: `sweep` a model over ratios in one loop over the data."""

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
