"""The page: sections of all runs as one HTML file that needs nothing else."""

import base64
import gzip
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from secateurs._io.text import printable
from secateurs._version import __version__
from secateurs.errors import FailureError, InvalidArgumentError, require
from secateurs.report.page.colours import DARK
from secateurs.report.page.layer_charts import layer_charts, layer_tables
from secateurs.report.page.page_parts import Chart, Section
from secateurs.report.page.retrain_section import retrain_section
from secateurs.report.page.run_files import Run, read_run
from secateurs.report.page.sweep_section import Axis, sweep_section
from secateurs.report.page.transfer_section import transfer_sections
from secateurs.results import Record, RetrainRow, Row, TransferRow
from secateurs.results.durable import replace_files

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
        runs: Output folders of sweeps, transfers and retrainings in any mixture, or their
            results.jsonl or results.csv. Those without a finished row are left out.
        path: The page; its folder is made.
        title: Heading of the page.
        x: The horizontal axis of sweeps, as of `secateurs.report.plot_sweep`.

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
    page, content = Path(path), page_text(sections_of(found, x), title=title).encode()
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailureError(
            f"cannot make the folder {page.parent} ({error.strerror}): give the page another path"
        ) from error
    replace_files({page: content})
    return page


def sections_of(runs: Sequence[Run], x: Axis = "achieved") -> list[Section]:
    """The sections of runs: kind by kind, in the order of the first run of each kind."""
    kinds = dict.fromkeys(run.kind for run in runs)
    return [
        section
        for kind in kinds
        for section in _WRITERS[kind]([run for run in runs if run.kind is kind], x)
    ]


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
    """The figure as JSON that may stand in a script element."""
    text = json.dumps(chart.figure, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _sweeps(runs: Sequence[Run], x: Axis) -> list[Section]:
    section = sweep_section([row for run in runs for row in run.rows], x)
    return [_with_files(section, runs)]


def _transfers(runs: Sequence[Run], _: Axis) -> list[Section]:
    *others, last = transfer_sections([row for run in runs for row in run.rows])
    return [*others, _with_files(last, runs)]


def _retrainings(runs: Sequence[Run], _: Axis) -> list[Section]:
    return [_with_files(retrain_section(run.rows), [run]) for run in runs]


def _with_files(section: Section, runs: Sequence[Run]) -> Section:
    """A section with what the folders of its runs hold beside the rows."""
    layers = [layer for run in runs for layer in run.layers]
    return replace(
        section,
        charts=[*section.charts, *layer_charts(layers)],
        tables=[*section.tables, *layer_tables(layers)],
        commands=[run.command for run in runs],
        details=[run.details for run in runs],
    )


_WRITERS: Mapping[type[Record], Callable[[Sequence[Run], Axis], list[Section]]] = {
    Row: _sweeps,
    TransferRow: _transfers,
    RetrainRow: _retrainings,
}
"""What makes the sections of each kind of rows; a new kind of rows has a new line here."""
