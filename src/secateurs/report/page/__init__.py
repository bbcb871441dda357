"""One HTML page about runs; Plotly and Jinja2 are imported on use."""
