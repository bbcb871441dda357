"""One HTML page about runs; Plotly and Jinja2 are imported on use."""

from secateurs.report.page._page import SUFFIX, write_page

__all__ = ["SUFFIX", "write_page"]
