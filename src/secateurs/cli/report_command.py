"""``secateurs report``: the tables and plots of runs on disk."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._console import say
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.report import (
    budget_markdown,
    markdown_table,
    plot_budget,
    plot_repair,
    plot_retrain,
    plot_sensitivity,
    plot_speed,
    plot_sweep,
    plot_transfer_curves,
    plot_transfer_heatmap,
    print_budget_table,
    print_repair_table,
    print_retrain_table,
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
from secateurs.report.plot import Axis
from secateurs.results import (
    BudgetRow,
    Record,
    RepairRow,
    RetrainRow,
    Row,
    SensitivityRow,
    SpeedRow,
    TransferRow,
    kind_of_rows,
    read_any_rows,
)

if TYPE_CHECKING:
    from rich.console import Console


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
    shown = _KINDS[_only_kind(kinds)]
    _say_unfinished(kinds)
    runs = {folder: read_any_rows(folder) for folder, kind in kinds.items() if kind}
    with Stdout() as stdout:
        if markdown:
            stdout.write(f"{shown.markdown(list(runs.values()))}\n")
        else:
            stdout.table(lambda console: shown.show(list(runs.values()), console))
        for path in _draw(shown, runs, output, title, x) if output else ():
            say(f"wrote {path}")


@dataclass(frozen=True)
class _Kind:
    """How the rows of one kind are shown.

    Attributes:
        markdown: makes a table in Markdown of the rows of each run.
        show: prints it in a terminal.
        draw: draws rows; takes the path, the title and the axis of sweeps.
        apart: whether each run has a plot of its own.
    """

    markdown: Callable[[list[Any]], str]
    show: Callable[[list[Any], "Console"], object]
    draw: Callable[[Any, Path, str | None, Axis], list[Path]]
    apart: bool = False


def _draw(
    kind: _Kind, runs: Mapping[Path, list[Any]], output: Path, title: str | None, x: Axis
) -> list[Path]:
    stem = output.with_suffix("") if output.suffix in (".png", ".svg") else output
    parts = [(stem, _together(runs.values()))]
    if kind.apart and len(runs) > 1:
        parts = [(stem.with_name(f"{stem.name}-{f.stem}"), rows) for f, rows in runs.items()]
    return [path for own, rows in parts for path in kind.draw(rows, own, title, x)]


def _together(runs: Iterable[list[Any]]) -> list[Any]:
    return [row for rows in runs for row in rows]


def _draw_transfers(rows: list[TransferRow], stem: Path, title: str | None, _: Axis) -> list[Path]:
    heatmap, curves = (stem.with_name(f"{stem.name}-{name}") for name in ("heatmap", "curves"))
    return [
        *plot_transfer_heatmap(rows, heatmap, title=title),
        *plot_transfer_curves(rows, curves, title=title),
    ]


_KINDS: Mapping[type[Record], _Kind] = {
    Row: _Kind(
        lambda runs: markdown_table(_together(runs)),
        lambda runs, console: print_table(_together(runs), console),
        lambda rows, stem, title, x: plot_sweep(rows, stem, title=title, x=x),
    ),
    TransferRow: _Kind(
        lambda runs: transfer_table_markdown(_together(runs)),
        lambda runs, console: print_transfer_table(_together(runs), console),
        _draw_transfers,
    ),
    SpeedRow: _Kind(
        lambda runs: speed_table_markdown(_together(runs)),
        lambda runs, console: print_speed_table(_together(runs), console),
        lambda rows, stem, title, _: plot_speed(rows, stem, title=title),
    ),
    SensitivityRow: _Kind(
        lambda runs: "\n".join(map(sensitivity_markdown, runs)),
        lambda runs, console: [print_sensitivity_table(rows, console) for rows in runs],
        lambda rows, stem, title, _: plot_sensitivity(rows, stem, title=title),
        apart=True,
    ),
    RetrainRow: _Kind(
        retrain_table,
        print_retrain_table,
        lambda rows, stem, title, _: plot_retrain(rows, stem, title=title),
        apart=True,
    ),
    BudgetRow: _Kind(
        budget_markdown,
        print_budget_table,
        lambda rows, stem, title, _: plot_budget(rows, stem, title=title),
        apart=True,
    ),
    RepairRow: _Kind(
        repair_table,
        print_repair_table,
        lambda rows, stem, title, _: plot_repair(rows, stem, title=title),
        apart=True,
    ),
}


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
        say(f"left out, since they have no finished rows: {unfinished}")


def _only_kind(kinds: Mapping[Path, type[Record] | None]) -> type[Record]:
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
    return next(iter(found))
