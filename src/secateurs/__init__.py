"""Exact, fast, restorable weight pruning for PyTorch.

Prune a model and put it back: `global_prune`, `gradient_prune`, `restore`, `make_permanent`, and
the context managers `pruned` and `gradient_pruned`. The parts they are made of: `select` gives
`Candidates`, their ``draw`` gives `Masks`, `apply_masks` puts them on a model, `sparsity` counts.

Measure: ``secateurs.evaluation.sweep``, `sensitivity` of layers, and `budget`, the sparsest network
within a margin. Win accuracy back: `repair` without labels, ``secateurs.training`` with masks that
hold while an optimizer works and schedules that prune further. `accelerate` makes a pruned model
faster where that is measured. Attack: ``secateurs.attacks``, and surrogates that are pruned afresh
at every call, `Diversified` and `ensemble`, by name ``dwp``, ``rapa`` and ``mup`` in
``secateurs.surrogates``. Files of weights: ``secateurs.checkpoint.prune_checkpoint`` and
`load_checkpoint`. Models and data by name: ``secateurs.zoo``.

    >>> import torch, secateurs as sc
    >>> model = sc.global_prune(torch.nn.Linear(8, 8), 0.5)
    >>> sc.sparsity(model).ratio, sc.sparsity(sc.restore(model)).ratio
    (0.5, 0.0)

Importing this package loads nothing else: torch, too, is imported when a name is first used.
"""

from importlib import import_module

from secateurs._version import __version__ as __version__

TYPE_CHECKING = False  # importing typing for it would take longer than all else here
if TYPE_CHECKING:  # for type checkers; `_HOME_OF` and `_MODULES` say the same while a program runs
    from secateurs import acceleration as acceleration
    from secateurs import attacks as attacks
    from secateurs import checkpoint as checkpoint
    from secateurs import criteria as criteria
    from secateurs import errors as errors
    from secateurs import evaluation as evaluation
    from secateurs import gradient_pruning as gradient_pruning
    from secateurs import masks as masks
    from secateurs import parameters as parameters
    from secateurs import pruning as pruning
    from secateurs import report as report
    from secateurs import results as results
    from secateurs import selection as selection
    from secateurs import surrogates as surrogates
    from secateurs import torch_prune as torch_prune
    from secateurs import training as training
    from secateurs import transfer as transfer
    from secateurs import zoo as zoo
    from secateurs.acceleration import Acceleration as Acceleration
    from secateurs.acceleration import accelerate as accelerate
    from secateurs.checkpoint import load_checkpoint as load_checkpoint
    from secateurs.errors import AccelerationWarning as AccelerationWarning
    from secateurs.errors import CoverageWarning as CoverageWarning
    from secateurs.errors import FailureError as FailureError
    from secateurs.errors import InvalidArgumentError as InvalidArgumentError
    from secateurs.errors import LostTrainingWarning as LostTrainingWarning
    from secateurs.errors import RepairWarning as RepairWarning
    from secateurs.errors import SecateursError as SecateursError
    from secateurs.evaluation._budget import budget as budget
    from secateurs.evaluation._sensitivity import sensitivity as sensitivity
    from secateurs.masks._sparsity import Sparsity as Sparsity
    from secateurs.masks._sparsity import sparsity as sparsity
    from secateurs.masks.mask import Mask as Mask
    from secateurs.masks.mask import Masks as Masks
    from secateurs.parameters.prunable_parameters import find_targets as find_targets
    from secateurs.parameters.target import Target as Target
    from secateurs.pruning import apply_masks as apply_masks
    from secateurs.pruning import global_prune as global_prune
    from secateurs.pruning import gradient_prune as gradient_prune
    from secateurs.pruning import gradient_pruned as gradient_pruned
    from secateurs.pruning import make_permanent as make_permanent
    from secateurs.pruning import pruned as pruned
    from secateurs.pruning import restore as restore
    from secateurs.repair import CallablePackage
    from secateurs.selection._select import select as select
    from secateurs.selection._select import select_levels as select_levels
    from secateurs.selection.candidates import Candidates as Candidates
    from secateurs.selection.candidates import Levels as Levels
    from secateurs.selection.selection_options import SelectionOptions as SelectionOptions
    from secateurs.surrogates import Diversified as Diversified
    from secateurs.surrogates import Ensemble as Ensemble
    from secateurs.surrogates import ensemble as ensemble
    from secateurs.torch_prune import from_torch_prune as from_torch_prune
    from secateurs.torch_prune import to_torch_prune as to_torch_prune

    repair = CallablePackage()

# The module that each name is imported from when it is first used.
_HOME_OF = {
    "Acceleration": "acceleration",
    "AccelerationWarning": "errors",
    "Candidates": "selection.candidates",
    "CoverageWarning": "errors",
    "Diversified": "surrogates",
    "Ensemble": "surrogates",
    "FailureError": "errors",
    "InvalidArgumentError": "errors",
    "Levels": "selection.candidates",
    "LostTrainingWarning": "errors",
    "Mask": "masks.mask",
    "Masks": "masks.mask",
    "RepairWarning": "errors",
    "SecateursError": "errors",
    "SelectionOptions": "selection.selection_options",
    "Sparsity": "masks._sparsity",
    "Target": "parameters.target",
    "accelerate": "acceleration",
    "apply_masks": "pruning",
    "budget": "evaluation._budget",
    "ensemble": "surrogates",
    "find_targets": "parameters.prunable_parameters",
    "from_torch_prune": "torch_prune",
    "global_prune": "pruning",
    "gradient_prune": "pruning",
    "gradient_pruned": "pruning",
    "load_checkpoint": "checkpoint",
    "make_permanent": "pruning",
    "pruned": "pruning",
    "restore": "pruning",
    "select": "selection._select",
    "select_levels": "selection._select",
    "sensitivity": "evaluation._sensitivity",
    "sparsity": "masks._sparsity",
    "to_torch_prune": "torch_prune",
}
_MODULES = (
    "acceleration",
    "attacks",
    "checkpoint",
    "criteria",
    "errors",
    "evaluation",
    "gradient_pruning",
    "masks",
    "parameters",
    "pruning",
    "repair",
    "report",
    "results",
    "selection",
    "surrogates",
    "torch_prune",
    "training",
    "transfer",
    "zoo",
)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_MODULES})


# Not for type checkers, to which any misspelt name would be known by `__getattr__`.
if not TYPE_CHECKING:
    __all__ = ["__version__", "repair", *_HOME_OF]

    def __getattr__(name):
        """Import what a name stands for when it is first used (PEP 562)."""
        if name in _HOME_OF:
            found = getattr(import_module(f"secateurs.{_HOME_OF[name]}"), name)
            return globals().setdefault(name, found)  # the next use does not come here
        if name in _MODULES:
            return import_module(f"secateurs.{name}")
        raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
