"""Masks that hold while a network trains, and schedules that prune it further.

`hold` keeps the zeros of a pruned model through every step of an optimizer. `Pruner` prunes further
by a schedule (`OneShot`, `Iterative`, `Cubic`, `Constant`), and lets pruned weights come back by
their magnitude (`MagnitudeRegrowth`) or their gradient (`GradientRegrowth`). `LightningPruning` and
`TrainerPruning` do it in Lightning and in transformers, which are imported when these are used.
`GradientPruner` prunes the backward pass alone. `KnowledgeDistillation` is a loss that also learns
from the dense network.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from secateurs.errors import require
from secateurs.training._hold import Hold, hold
from secateurs.training.gradient_pruner import GradientPruner
from secateurs.training.knowledge_distillation import KnowledgeDistillation
from secateurs.training.mask_state import masks_from_zeros
from secateurs.training.pruner import Pruner
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth
from secateurs.training.schedules import Constant, Cubic, Iterative, OneShot, Schedule, erk_ratios

if TYPE_CHECKING:
    from secateurs.training.lightning_callback import LightningPruning as LightningPruning
    from secateurs.training.trainer_callback import TrainerPruning as TrainerPruning

__all__ = [
    "Constant",
    "Cubic",
    "GradientPruner",
    "GradientRegrowth",
    "Hold",
    "Iterative",
    "KnowledgeDistillation",
    "MagnitudeRegrowth",
    "OneShot",
    "Pruner",
    "Schedule",
    "erk_ratios",
    "hold",
    "masks_from_zeros",
]

# For each callback its module, the package that it needs, and the extra that installs that.
_ON_USE = {
    "LightningPruning": ("lightning_callback", "lightning", "lightning"),
    "TrainerPruning": ("trainer_callback", "transformers", "hf"),
}

# Not for type checkers: with a module's __getattr__ they accept every misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name):
        """Import Lightning or transformers when its callback is first used."""
        if name in _ON_USE:
            module, package, extra = _ON_USE[name]
            require(package, name, extra=extra)
            return getattr(import_module(f"secateurs.training.{module}"), name)
        raise AttributeError(f"module 'secateurs.training' has no attribute {name!r}")
