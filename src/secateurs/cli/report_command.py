"""``secateurs report``: the tables and plots of runs that lie on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from secateurs._console import say
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.report import (
    markdown_table,
    plot_retrain,
    plot_sensitivity,
    plot_sweep,
    plot_transfer_curves,
    plot_transfer_heatmap,
    print_sensitivity_table,
    print_table,
    print_transfer_table,
    retrain_table,
    sensitivity_markdown,
    transfer_table_markdown,
)
from secateurs.report.figure import named_stem
from secateurs.results import (
    Record,
    RetrainRow,
    SensitivityRow,
    TransferRow,
    kind_of_rows,
    read_retrain_rows,
    read_rows,
    read_sensitivity_rows,
    read_transfer_rows,
)

Axis = Literal["achieved", "p_prune"]


def run_report(
    folders: Sequence[Path], output: Path | None, x: Axis, title: str | None, *, markdown: bool
) -> None:
    """Print a table of the rows in some folders, and draw them where a path is given.

    Args:
        folders: where rows are.
        output: where to write the plot, without its ending.
        x: horizontal axis of sweeps.
        title: of the plot.
        markdown: whether the table is in markdown.
    """
    if output:
        named_stem(output)  # before anything is printed
    kinds = {folder: kind_of_rows(folder) for folder in folders}
    _check_kinds(kinds)
    unfinished = ", ".join(str(folder) for folder, kind in kinds.items() if kind is None)
    if unfinished:
        say(f"left out, since no rows are finished yet: {unfinished}")
    stem = output.with_suffix("") if output and output.suffix in (".png", ".svg") else output
    finished = [folder for folder, kind in kinds.items() if kind is not None]
    with Stdout() as stdout:
        if TransferRow in kinds.values():
            paths = _transfers(finished, stem, title, stdout, markdown=markdown)
        elif RetrainRow in kinds.values():
            paths = _retrainings(finished, stem, title, stdout)
        elif SensitivityRow in kinds.values():
            paths = _sensitivities(finished, stem, title, stdout, markdown=markdown)
        else:
            paths = _sweeps(finished, stem, title, x, stdout, markdown=markdown)
        for path in paths:
            say(f"wrote {path}")


def _check_kinds(kinds: Mapping[Path, type[Record] | None]) -> None:
    found = {kind: path for path, kind in kinds.items() if kind}
    if not found:
        raise InvalidArgumentError(
            f"no finished rows in {', '.join(map(str, kinds))}: let the run finish first"
        )
    if len(found) > 1:
        said = " and ".join(f"{path} is a {kind.KIND}" for kind, path in found.items())
        raise InvalidArgumentError(f"{said}; give folders of one kind")


def _retrainings(
    folders: Sequence[Path], stem: Path | None, title: str | None, stdout: Stdout
) -> list[Path]:
    runs = {folder: read_retrain_rows(folder) for folder in folders}
    stdout.write(retrain_table(list(runs.values())))
    if stem is None:
        return []
    several = len(runs) > 1
    stems = [stem.with_name(f"{stem.name}-{f.stem}") if several else stem for f in runs]
    pairs = zip(runs.values(), stems, strict=True)
    return [path for rows, own in pairs for path in plot_retrain(rows, own, title=title)]


def _sensitivities(
    folders: Sequence[Path],
    stem: Path | None,
    title: str | None,
    stdout: Stdout,
    *,
    markdown: bool,
) -> list[Path]:
    paths: list[Path] = []
    for folder in folders:
        rows = read_sensitivity_rows(folder)
        if markdown:
            stdout.write(f"{sensitivity_markdown(rows)}\n")
        else:
            stdout.table(lambda console, rows=rows: print_sensitivity_table(rows, console))
        if stem is not None:
            own = stem.with_name(f"{stem.name}-{folder.stem}") if len(folders) > 1 else stem
            paths += plot_sensitivity(rows, own, title=title)
    return paths


def _sweeps(
    folders: Sequence[Path],
    stem: Path | None,
    title: str | None,
    x: Axis,
    stdout: Stdout,
    *,
    markdown: bool,
) -> list[Path]:
    rows = [row for folder in folders for row in read_rows(folder)]
    if markdown:
        stdout.write(f"{markdown_table(rows)}\n")
    else:
        stdout.table(lambda console: print_table(rows, console))
    return plot_sweep(rows, stem, title=title, x=x) if stem else []


def _transfers(
    folders: Sequence[Path],
    stem: Path | None,
    title: str | None,
    stdout: Stdout,
    *,
    markdown: bool,
) -> list[Path]:
    rows = [row for folder in folders for row in read_transfer_rows(folder)]
    if markdown:
        stdout.write(f"{transfer_table_markdown(rows)}\n")
    else:
        stdout.table(lambda console: print_transfer_table(rows, console))
    if stem is None:
        return []
    heatmap, curves = (stem.with_name(f"{stem.name}-{name}") for name in ("heatmap", "curves"))
    return [
        *plot_transfer_heatmap(rows, heatmap, title=title),
        *plot_transfer_curves(rows, curves, title=title),
    ]
