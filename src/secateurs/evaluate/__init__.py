"""How accuracy falls as weights go: `sweep` a model over ratios in one pass over the data."""

from secateurs.evaluate.accuracy import Tally, accuracy
from secateurs.evaluate.gradients import accumulate_gradients
from secateurs.evaluate.grid import Grid
from secateurs.evaluate.ranks import Ranks
from secateurs.evaluate.sweep import Subject, sweep
from secateurs.outputs import logits_of

__all__ = [
    "Grid",
    "Ranks",
    "Subject",
    "Tally",
    "accumulate_gradients",
    "accuracy",
    "logits_of",
    "sweep",
]
