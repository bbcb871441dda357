"""Exact, fast, restorable weight pruning for PyTorch.

Prune a model and put it back: `global_prune`, `gradient_prune`, `restore`, `make_permanent`, and
the context managers `pruned` and `gradient_pruned`. The parts they are made of: `select` gives
`Candidates`, their ``draw`` gives `Masks`, `apply_masks` puts them on a model, `sparsity` counts.
Surrogates that are pruned afresh at every call: `Diversified` and `ensemble`, and by name ``dwp``,
``rapa`` and ``mup`` in ``secateurs.surrogate``.
"""

from importlib import import_module
from typing import Any

from secateurs._version import __version__
from secateurs.candidates import Candidates, Levels
from secateurs.errors import (
    CoverageWarning,
    FailureError,
    InvalidArgumentError,
    LostTrainingWarning,
    SecateursError,
)
from secateurs.masks import Mask, Masks
from secateurs.prune import (
    apply_masks,
    global_prune,
    gradient_prune,
    gradient_pruned,
    make_permanent,
    pruned,
    restore,
)
from secateurs.selecting import select, select_levels
from secateurs.sparsity import Sparsity, sparsity
from secateurs.surrogate import Diversified, Ensemble, ensemble
from secateurs.target import Target
from secateurs.targets import find_targets

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

_ON_USE = ("attack", "checkpoint", "evaluate", "report", "results", "zoo")


def __getattr__(name: str) -> Any:
    """Load `secateurs.evaluate` and its like when they are first asked for, not on import."""
    if name == "load_checkpoint":
        return import_module("secateurs.checkpoint").load_checkpoint
    if name in _ON_USE:
        return import_module(f"secateurs.{name}")
    raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
