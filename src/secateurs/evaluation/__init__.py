"""Measure the accuracy of pruned models, all in one loop over the data.

`sweep` prunes at several ratios, `sensitivity` prunes each layer alone, and `budget` finds the
sparsest network whose accuracy provably drops by less than a margin. `speed_sweep` measures how
fast they are, dense and accelerated.
"""

from secateurs.evaluation._budget import budget
from secateurs.evaluation._sensitivity import sensitivity
from secateurs.evaluation._speed_sweep import SpeedGrid, speed_sweep
from secateurs.evaluation._sweep import sweep
from secateurs.evaluation.budget_outcome import Budget
from secateurs.evaluation.budget_search import Look
from secateurs.evaluation.gradients import accumulate_gradients
from secateurs.evaluation.grid import Grid
from secateurs.evaluation.metrics import Tally, accuracy
from secateurs.evaluation.proposed_ratios import propose_ratios
from secateurs.evaluation.sweep_rows import Provenance
from secateurs.outputs import logits_of

__all__ = [
    "Budget",
    "Grid",
    "Look",
    "Provenance",
    "SpeedGrid",
    "Tally",
    "accumulate_gradients",
    "accuracy",
    "budget",
    "logits_of",
    "propose_ratios",
    "sensitivity",
    "speed_sweep",
    "sweep",
]
