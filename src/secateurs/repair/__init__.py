"""Accuracy back without labels: what pruning broke, repaired from a few images."""

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import cleandoc, signature
from types import ModuleType

from secateurs.repair.allocation import allocate as allocate
from secateurs.repair.input_moments import observed_inputs as observed_inputs
from secateurs.repair.pipeline import repair as _repair
from secateurs.repair.ratio_files import read_ratios as read_ratios
from secateurs.repair.ratio_files import write_ratios as write_ratios
from secateurs.repair.repair_options import STEPS as STEPS
from secateurs.repair.repair_options import RepairOptions as RepairOptions
from secateurs.repair.repair_report import RepairReport as RepairReport
from secateurs.repair.repair_report import StepReport as StepReport


class CallablePackage:
    """``secateurs.repair`` is the function that people want, and the package of its parts.

    Type checkers know no module that can be called: to them it is an object of this class, whose
    misspelt names are errors.
    """

    __call__ = staticmethod(_repair)
    __signature__ = signature(_repair)  # for `help` and the like
    allocate = staticmethod(allocate)
    observed_inputs = staticmethod(observed_inputs)
    read_ratios = staticmethod(read_ratios)
    write_ratios = staticmethod(write_ratios)
    STEPS = STEPS
    RepairOptions = RepairOptions
    RepairReport = RepairReport
    StepReport = StepReport


class _Module(CallablePackage, ModuleType):
    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return import_module, (self.__name__,)  # copied and pickled as a function is


_package = sys.modules[__name__]
_package.__class__ = _Module
_package.__doc__ = f"{__doc__}\n\n{cleandoc(_repair.__doc__ or '')}"
