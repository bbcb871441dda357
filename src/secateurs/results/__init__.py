"""Result rows, the interval around an accuracy, and the folder that keeps rows whatever happens.

Needs the standard library only, so that results can be read where torch is not installed.
"""

from secateurs.results.folder import Results, read_rows
from secateurs.results.interval import wilson_interval
from secateurs.results.row import COLUMNS, Row

__all__ = ["COLUMNS", "Results", "Row", "read_rows", "wilson_interval"]
