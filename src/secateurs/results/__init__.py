"""Result rows, intervals of accuracies, and the folder that keeps rows through crashes.

Needs the standard library only, so that results can be read where torch is not installed.
"""

from secateurs.results.budget_row import BudgetRow
from secateurs.results.folder import Results
from secateurs.results.interval import wilson_interval
from secateurs.results.layer_row import LayerRow, read_layer_rows, write_layer_rows
from secateurs.results.record import Record
from secateurs.results.repair_row import RepairRow
from secateurs.results.retrain_row import RetrainRow
from secateurs.results.row import Row
from secateurs.results.row_reader import (
    kind_of_rows,
    read_any_rows,
    read_rows,
)
from secateurs.results.rows import Rows
from secateurs.results.sensitivity_row import SensitivityRow
from secateurs.results.speed_row import SpeedRow
from secateurs.results.transfer_row import TransferRow, digest_of, hit_columns

__all__ = [
    "BudgetRow",
    "LayerRow",
    "Record",
    "RepairRow",
    "Results",
    "RetrainRow",
    "Row",
    "Rows",
    "SensitivityRow",
    "SpeedRow",
    "TransferRow",
    "digest_of",
    "hit_columns",
    "kind_of_rows",
    "read_any_rows",
    "read_layer_rows",
    "read_rows",
    "wilson_interval",
    "write_layer_rows",
]
