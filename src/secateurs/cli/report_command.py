"""``secateurs report``: the tables and plots of runs that lie on disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from secateurs._console import say
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.report import (
    markdown_table,
    plot_retrain,
    plot_sensitivity,
    plot_speed,
    plot_sweep,
    plot_transfer_curves,
    plot_transfer_heatmap,
    print_sensitivity_table,
    print_speed_table,
    print_table,
    print_transfer_table,
    repair_table,
    retrain_table,
    sensitivity_markdown,
    speed_table_markdown,
    transfer_table_markdown,
)
from secateurs.report.figure import named_stem
from secateurs.report.page import SUFFIX, write_page
from secateurs.results import (
    Record,
    RepairRow,
    RetrainRow,
    SensitivityRow,
    SpeedRow,
    TransferRow,
    kind_of_rows,
    read_repair_rows,
    read_retrain_rows,
    read_rows,
    read_sensitivity_rows,
    read_speed_rows,
    read_transfer_rows,
)

if TYPE_CHECKING:
    from rich.console import Console

R = TypeVar("R")
Axis = Literal["achieved", "p_prune"]


def run_report(
    folders: Sequence[Path], output: Path | None, x: Axis, title: str | None, *, markdown: bool
) -> None:
    """Print a table of the rows in some folders, and draw them where a path is given.

    Args:
        folders: where rows are.
        output: where to write the plot, without its ending, or the page.
        x: horizontal axis of sweeps.
        title: of the plot.
        markdown: whether the table is in markdown.
    """
    if output and output.suffix == SUFFIX:
        _write_page(folders, output, x, title, markdown=markdown)
        return
    if output:
        named_stem(output)  # before anything is printed
    kinds = {folder: kind_of_rows(folder) for folder in folders}
    _check_kinds(kinds)
    if output and RepairRow in kinds.values():
        raise InvalidArgumentError(
            "a repair is a table without a plot: leave out --output, or write --output PAGE.html"
        )
    _say_unfinished(kinds)
    stem = output.with_suffix("") if output and output.suffix in (".png", ".svg") else output
    finished = [folder for folder, kind in kinds.items() if kind is not None]
    with Stdout() as stdout:
        if TransferRow in kinds.values():
            found = [row for folder in finished for row in read_transfer_rows(folder)]
            _show(found, transfer_table_markdown, print_transfer_table, stdout, markdown=markdown)
            paths = _draw_transfers(found, stem, title) if stem else []
        elif RetrainRow in kinds.values():
            paths = _retrainings(finished, stem, title, stdout)
        elif RepairRow in kinds.values():
            stdout.write(repair_table([read_repair_rows(folder) for folder in finished]))
            paths = []
        elif SpeedRow in kinds.values():
            found = [row for folder in finished for row in read_speed_rows(folder)]
            _show(found, speed_table_markdown, print_speed_table, stdout, markdown=markdown)
            paths = plot_speed(found, stem, title=title) if stem else []
        elif SensitivityRow in kinds.values():
            paths = _sensitivities(finished, stem, title, stdout, markdown=markdown)
        else:
            rows = [row for folder in finished for row in read_rows(folder)]
            _show(rows, markdown_table, print_table, stdout, markdown=markdown)
            paths = plot_sweep(rows, stem, title=title, x=x) if stem else []
        for path in paths:
            say(f"wrote {path}")


def _write_page(
    folders: Sequence[Path], output: Path, x: Axis, title: str | None, *, markdown: bool
) -> None:
    if markdown:
        raise InvalidArgumentError(
            "--markdown prints a table, and a page has its own: leave it out"
        )
    kinds = {folder: kind_of_rows(folder) for folder in folders}
    _say_unfinished(kinds)
    finished = [folder for folder, kind in kinds.items() if kind]
    say(f"wrote {write_page(finished or folders, output, title=title, x=x)}")


def _say_unfinished(kinds: Mapping[Path, type[Record] | None]) -> None:
    unfinished = ", ".join(str(folder) for folder, kind in kinds.items() if kind is None)
    if unfinished and any(kinds.values()):
        say(f"left out, since no rows are finished yet: {unfinished}")


def _check_kinds(kinds: Mapping[Path, type[Record] | None]) -> None:
    found = {kind: path for path, kind in kinds.items() if kind}
    if not found:
        raise InvalidArgumentError(
            f"no finished rows in {', '.join(map(str, kinds))}: let the run finish first"
        )
    if len(found) > 1:
        said = " and ".join(f"{path} is a {kind.KIND}" for kind, path in found.items())
        raise InvalidArgumentError(
            f"{said}; give folders of one kind, or write "
            "--output PAGE.html, which takes all of them"
        )


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
        _show(rows, sensitivity_markdown, print_sensitivity_table, stdout, markdown=markdown)
        if stem is not None:
            own = stem.with_name(f"{stem.name}-{folder.stem}") if len(folders) > 1 else stem
            paths += plot_sensitivity(rows, own, title=title)
    return paths


def _show(
    rows: list[R],
    in_markdown: Callable[[list[R]], str],
    print_rows: Callable[[list[R], "Console"], None],
    stdout: Stdout,
    *,
    markdown: bool,
) -> None:
    if markdown:
        stdout.write(f"{in_markdown(rows)}\n")
    else:
        stdout.table(lambda console: print_rows(rows, console))


def _draw_transfers(rows: list[TransferRow], stem: Path, title: str | None) -> list[Path]:
    heatmap, curves = (stem.with_name(f"{stem.name}-{name}") for name in ("heatmap", "curves"))
    return [
        *plot_transfer_heatmap(rows, heatmap, title=title),
        *plot_transfer_curves(rows, curves, title=title),
    ]
