"""Accuracy back without labels: what pruning broke, repaired from a few images."""

import inspect
import sys
from types import ModuleType
from typing import Any

from secateurs.repair.allocation import allocate as allocate
from secateurs.repair.input_moments import observed_inputs as observed_inputs
from secateurs.repair.pipeline import repair as _repair
from secateurs.repair.ratio_files import read_ratios as read_ratios
from secateurs.repair.ratio_files import write_ratios as write_ratios
from secateurs.repair.repair_options import STEPS as STEPS
from secateurs.repair.repair_options import RepairOptions as RepairOptions
from secateurs.repair.repair_report import RepairReport as RepairReport
from secateurs.repair.repair_report import StepReport as StepReport


class _CallableModule(ModuleType):
    """``secateurs.repair`` is the function that people want, and the package of its parts."""

    def __call__(self, *args: Any, **kwargs: Any) -> RepairReport:
        return _repair(*args, **kwargs)


_package: Any = sys.modules[__name__]
_package.__class__ = _CallableModule
# `help(secateurs.repair)` and editors tell of the function, too.
_package.__signature__ = inspect.signature(_repair)
_package.__doc__ = f"{__doc__}\n\n{inspect.cleandoc(_repair.__doc__ or '')}"
