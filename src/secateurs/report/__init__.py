"""Tables and plots of result rows; rich and matplotlib load on use."""

from secateurs.report.plot import plot_sweep
from secateurs.report.table import markdown_table, print_table

__all__ = ["markdown_table", "plot_sweep", "print_table"]
