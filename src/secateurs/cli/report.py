"""``secateurs report``: the table and the plot of sweeps that lie on disk."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secateurs._checks import check_choice
from secateurs.errors import InvalidArgumentError
from secateurs.report import markdown_table, plot_sweep, print_table
from secateurs.results import read_rows

_AXES = ("achieved", "p_prune")


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Output folders of sweeps, or their results.jsonl or results.csv."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the plot: PATH.png and PATH.svg."),
    ] = None,
    x: Annotated[
        str,
        typer.Option("--x", help="Horizontal axis: achieved (of weights) or p_prune (of units)."),
    ] = "achieved",
    title: Annotated[str | None, typer.Option("--title", help="Title of the plot.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in markdown.")
    ] = False,
) -> None:
    """Print the table of one or more sweeps, and draw them in one plot."""
    chosen = check_choice("--x", x.replace("-", "_"), _AXES)
    found = {folder: read_rows(folder) for folder in folders}
    rows = [row for one in found.values() for row in one]
    unfinished = ", ".join(str(folder) for folder, one in found.items() if not one)
    if not rows:
        raise InvalidArgumentError(f"no finished rows in {unfinished}: let the sweep finish first")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if unfinished:
        console.print(f"left out, since no rows are finished yet: {unfinished}")
    if markdown:
        typer.echo(markdown_table(rows))
    else:
        print_table(rows)
    if output is not None:
        stem = output.with_suffix("") if output.suffix in (".png", ".svg") else output
        axis = "p_prune" if chosen == "p_prune" else "achieved"
        for path in plot_sweep(rows, stem, title=title, x=axis):
            console.print(f"wrote {path}")
