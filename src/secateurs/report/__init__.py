"""Tables, plots and pages of result rows; what draws them is imported on use."""

from secateurs.report.page.html_page import write_page
from secateurs.report.row_kinds import markdown_table, plot_rows, print_table
from secateurs.report.run_comparison import RunDifference, compare_runs, comparison_table
from secateurs.report.transfer_curves import plot_transfer_curves
from secateurs.report.transfer_heatmap import plot_transfer_heatmap

__all__ = [
    "RunDifference",
    "compare_runs",
    "comparison_table",
    "markdown_table",
    "plot_rows",
    "plot_transfer_curves",
    "plot_transfer_heatmap",
    "print_table",
    "write_page",
]
