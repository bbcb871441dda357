"""Exact, fast, restorable weight pruning for PyTorch.

Prune a model and put it back: `global_prune`, `gradient_prune`, `restore`, `make_permanent`, and
the context managers `pruned` and `gradient_pruned`. The parts they are made of: `select` gives
`Candidates`, their ``draw`` gives `Masks`, `apply_masks` puts them on a model, `sparsity` counts.
Surrogates that are pruned afresh at every call: `Diversified` and `ensemble`, and by name ``dwp``,
``rapa`` and ``mup`` in ``secateurs.surrogates``. Masks that hold while an optimizer works, and
schedules that prune further: ``secateurs.training``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from secateurs._version import __version__
from secateurs.errors import (
    CoverageWarning,
    FailureError,
    InvalidArgumentError,
    LostTrainingWarning,
    SecateursError,
)
from secateurs.masks._sparsity import Sparsity, sparsity
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.prunable_parameters import find_targets
from secateurs.parameters.target import Target
from secateurs.pruning import (
    apply_masks,
    global_prune,
    gradient_prune,
    gradient_pruned,
    make_permanent,
    pruned,
    restore,
)
from secateurs.selection._select import select, select_levels
from secateurs.selection.candidates import Candidates, Levels
from secateurs.surrogates import Diversified, Ensemble, ensemble

if TYPE_CHECKING:
    from secateurs import attacks as attacks
    from secateurs import checkpoint as checkpoint
    from secateurs import evaluation as evaluation
    from secateurs import report as report
    from secateurs import results as results
    from secateurs import training as training
    from secateurs import transfer as transfer
    from secateurs import zoo as zoo
    from secateurs.checkpoint import load_checkpoint as load_checkpoint

__all__ = [
    "Candidates",
    "CoverageWarning",
    "Diversified",
    "Ensemble",
    "FailureError",
    "InvalidArgumentError",
    "Levels",
    "LostTrainingWarning",
    "Mask",
    "Masks",
    "SecateursError",
    "Sparsity",
    "Target",
    "__version__",
    "apply_masks",
    "ensemble",
    "find_targets",
    "global_prune",
    "gradient_prune",
    "gradient_pruned",
    "make_permanent",
    "pruned",
    "restore",
    "select",
    "select_levels",
    "sparsity",
]

_ON_USE = (
    "attacks",
    "checkpoint",
    "evaluation",
    "report",
    "results",
    "training",
    "transfer",
    "zoo",
)

# Not for type checkers, to which any misspelt name would be known by it.
if not TYPE_CHECKING:

    def __getattr__(name):
        """Load `secateurs.evaluation` and its like when they are first asked for, not on import."""
        if name == "load_checkpoint":
            return import_module("secateurs.checkpoint").load_checkpoint
        if name in _ON_USE:
            return import_module(f"secateurs.{name}")
        raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
