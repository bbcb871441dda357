"""Masks that hold while a network trains, and schedules that prune it further.

`hold` keeps the zeros of a pruned model through every step of an optimizer. `Pruner` prunes further
by a schedule (`OneShot`, `Iterative`, `Cubic`, `Constant`), and lets pruned weights come back by
their magnitude (`MagnitudeRegrowth`) or their gradient (`GradientRegrowth`).
"""

from secateurs.training._hold import Hold, hold
from secateurs.training.erk import erk_ratios
from secateurs.training.pruner import Pruner
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth
from secateurs.training.schedules import Constant, Cubic, Iterative, OneShot, Schedule
from secateurs.training.zero_masks import masks_from_zeros

__all__ = [
    "Constant",
    "Cubic",
    "GradientRegrowth",
    "Hold",
    "Iterative",
    "MagnitudeRegrowth",
    "OneShot",
    "Pruner",
    "Schedule",
    "erk_ratios",
    "hold",
    "masks_from_zeros",
]
