"""One HTML page about runs; Plotly and Jinja2 are imported on use."""

from secateurs.report.page.html_page import SUFFIX, write_page

__all__ = ["SUFFIX", "write_page"]
