"""The page: sections of all runs as one HTML file that needs nothing else."""

import base64
import gzip
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from secateurs._io.text import printable
from secateurs._version import __version__
from secateurs.errors import InvalidArgumentError, require
from secateurs.report.figure import write_files
from secateurs.report.page.colours import DARK
from secateurs.report.page.layer_charts import layer_charts, layer_tables
from secateurs.report.page.page_parts import Chart, Command, Section
from secateurs.report.page.run_files import Run, read_run
from secateurs.report.row_kinds import ROW_KINDS, rows_sections
from secateurs.report.sweep_report import Axis

SUFFIX = ".html"


def write_page(
    runs: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    x: Axis = "achieved",
) -> Path:
    """Write one HTML page about runs, which opens from disk without a network.

    It has the main numbers, charts whose curves can be hovered over and hidden, tables that sort,
    the configurations, the versions and the commands. It follows the reader's choice of a light or
    a dark page. The same runs give the same page.

    Args:
        runs: Output folders of runs of any kind, or their results.jsonl or results.csv. Those
            without a finished row are left out.
        path: The page; its folder is made.
        title: Heading of the page.
        x: The horizontal axis of sweeps, as of `secateurs.report.plot_rows`.

    Returns:
        The path of the page.

    Raises:
        InvalidArgumentError: There are no finished rows.
        FailureError: Plotly or Jinja2 is not installed, or the page cannot be written.
    """
    for package in ("plotly", "jinja2"):
        require(package, "a page", extra="report")
    found = [run for run in (read_run(Path(run)) for run in runs) if run is not None]
    if not found:
        raise InvalidArgumentError(
            f"no finished rows in {', '.join(map(str, runs))}: let the run finish first"
        )
    page = Path(path)
    write_files({page: page_text(sections_of(found, x), title=title).encode()}, "page")
    return page


def sections_of(runs: Sequence[Run], x: Axis = "achieved") -> list[Section]:
    """The sections of runs: kind by kind, in the order of the first run of each kind.

    Where titles would be equal, as of two retrainings of one model, they name the runs.

    Args:
        runs: The runs.
        x: The horizontal axis of sweeps.
    """
    groups: list[list[Run]] = []
    for kind in dict.fromkeys(run.kind for run in runs):
        own = [run for run in runs if run.kind is kind]
        groups += [[run] for run in own] if ROW_KINDS[kind].alone else [own]
    found = [(section, group) for group in groups for section in _group_sections(group, x)]
    times = Counter(section.title for section, _ in found)
    return [
        section
        if times[section.title] == 1 or len(group) > 1
        else replace(section, title=f"{section.title}: {group[0].name}")
        for section, group in found
    ]


def _group_sections(runs: Sequence[Run], x: Axis) -> list[Section]:
    """The sections of all rows of some runs; the last one also shows their other files."""
    *others, last = rows_sections([row for run in runs for row in run.rows], x)
    layers = [layer for run in runs for layer in run.layers]
    whole = replace(
        last,
        charts=[*last.charts, *layer_charts(layers)],
        tables=[*last.tables, *layer_tables(layers)],
        commands=[Command(run.command, run.name) for run in runs if run.command],
        details=[run.details for run in runs],
    )
    return [*others, whole]


def page_text(sections: Sequence[Section], *, title: str | None = None) -> str:
    """The page as HTML.

    Args:
        sections: What it shows.
        title: Its heading; by default that of its only section.
    """
    import jinja2
    import plotly.offline

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("secateurs.report.page", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    library = gzip.compress(plotly.offline.get_plotlyjs().encode(), 9, mtime=0)
    return environment.get_template("page.html").render(
        title=printable(title) if title else _usual_title(sections),
        sections=sections,
        version=__version__,
        dark=DARK,
        figure=_figure,
        library=base64.b64encode(library).decode(),
        style=_source("page.css"),
        script=_source("page.js"),
    )


def _usual_title(sections: Sequence[Section]) -> str:
    titles = dict.fromkeys(section.title for section in sections)
    return "Results of pruning" if len(titles) > 1 else next(iter(titles))


def _figure(chart: Chart) -> str:
    """The figure as JSON that is safe inside a script element."""
    text = json.dumps(chart.figure, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
