"""Tables, plots and pages of result rows; what draws them is imported on use."""

from secateurs.report.budget_plot import plot_budget
from secateurs.report.budget_table import budget_markdown, print_budget_table
from secateurs.report.page.html_page import write_page
from secateurs.report.plot import plot_sweep
from secateurs.report.repair_plot import plot_repair
from secateurs.report.repair_stages import print_repair_table, repair_table
from secateurs.report.retrain_curves import plot_retrain
from secateurs.report.retrain_outcomes import print_retrain_table, retrain_table
from secateurs.report.run_comparison import RunDifference, compare_runs, comparison_table
from secateurs.report.sensitivity_heatmap import plot_sensitivity
from secateurs.report.sensitivity_table import print_sensitivity_table, sensitivity_markdown
from secateurs.report.speed_plot import plot_speed
from secateurs.report.speed_table import print_speed_table, speed_table_markdown
from secateurs.report.table import markdown_table, print_table
from secateurs.report.transfer_curves import plot_transfer_curves
from secateurs.report.transfer_heatmap import plot_transfer_heatmap
from secateurs.report.transfer_table import print_transfer_table, transfer_table_markdown

__all__ = [
    "RunDifference",
    "budget_markdown",
    "compare_runs",
    "comparison_table",
    "markdown_table",
    "plot_budget",
    "plot_repair",
    "plot_retrain",
    "plot_sensitivity",
    "plot_speed",
    "plot_sweep",
    "plot_transfer_curves",
    "plot_transfer_heatmap",
    "print_budget_table",
    "print_repair_table",
    "print_retrain_table",
    "print_sensitivity_table",
    "print_speed_table",
    "print_table",
    "print_transfer_table",
    "repair_table",
    "retrain_table",
    "sensitivity_markdown",
    "speed_table_markdown",
    "transfer_table_markdown",
    "write_page",
]
