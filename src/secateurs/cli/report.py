"""``secateurs report``: the table and the plot of sweeps that lie on disk."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.report import markdown_table, plot_sweep, print_table
from secateurs.results import read_rows


class Axis(StrEnum):
    """What the horizontal axis shows."""

    ACHIEVED = "achieved"
    P_PRUNE = "p_prune"


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
        Axis, typer.Option("--x", help="Horizontal axis: ratio of weights, or p_prune (of units).")
    ] = Axis.ACHIEVED,
    title: Annotated[str | None, typer.Option("--title", help="Title of the plot.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in markdown.")
    ] = False,
) -> None:
    """Print the table of one or more sweeps, and draw them in one plot."""
    rows = [row for folder in folders for row in read_rows(folder)]
    if not rows:
        raise InvalidArgumentError(
            f"no finished rows in {', '.join(map(str, folders))}: let the sweep finish first"
        )
    if markdown:
        typer.echo(markdown_table(rows))
    else:
        print_table(rows)
    if output is not None:
        stem = output.with_suffix("") if output.suffix in (".png", ".svg") else output
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FailureError(f"cannot write to {stem.parent}: {error.strerror}") from error
        for path in plot_sweep(rows, stem, title=title, x=x.value):
            Console(stderr=True).print(f"wrote {path}", highlight=False, soft_wrap=True)
