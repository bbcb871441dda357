"""``secateurs report`` and ``secateurs compare``: tables, plots and differences of runs on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateurs._console import say
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.report.figure import named_stem
from secateurs.report.page.html_page import SUFFIX, write_page
from secateurs.report.row_kinds import ROW_KINDS, RowKind, joined
from secateurs.report.run_comparison import compare_runs, comparison_table
from secateurs.report.sweep_report import Axis
from secateurs.results import Record, kind_of_rows, read_any_rows


def run_report(
    folders: Sequence[Path], output: Path | None, x: Axis, title: str | None, *, markdown: bool
) -> None:
    """Print a table of the rows in some folders, and draw them or write a page where that is asked.

    The options are those of `secateurs.cli.file_commands.report`.
    """
    if output and output.suffix == SUFFIX:
        _write_page(folders, output, x, title, markdown=markdown)
        return
    if output:
        named_stem(output)  # before anything is printed
    kinds = {folder: kind_of_rows(folder) for folder in folders}
    shown = ROW_KINDS[_only_kind(kinds)]
    _say_unfinished(kinds)
    runs = {folder: read_any_rows(folder) for folder, kind in kinds.items() if kind}
    with Stdout() as stdout:
        if markdown:
            stdout.write(f"{shown.markdown_tables(list(runs.values()))}\n")
        else:
            stdout.table(lambda console: shown.print_tables(list(runs.values()), console))
        for path in _draw(shown, runs, output, title, x) if output else ():
            say(f"wrote {path}")


def _draw(
    kind: RowKind, runs: Mapping[Path, list[Any]], output: Path, title: str | None, x: Axis
) -> list[Path]:
    stem = output.with_suffix("") if output.suffix in (".png", ".svg") else output
    parts = [(stem, joined(runs.values()))]
    if kind.alone and len(runs) > 1:
        parts = [(stem.with_name(f"{stem.name}-{f.stem}"), rows) for f, rows in runs.items()]
    return [path for own, rows in parts for path in kind.plot(rows, own, title, x)]


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


def run_compare(folders: Sequence[Path], confidence: float, *, as_json: bool) -> None:
    """Print how the accuracies of runs differ from those of the first one.

    The options are those of `secateurs.cli.file_commands.compare`.
    """
    found = compare_runs(folders, confidence)
    with Stdout("the comparison") as stdout:
        if as_json:
            stdout.write("".join(json.dumps(asdict(one)) + "\n" for one in found))
        else:
            stdout.table(lambda console: comparison_table(found, console, confidence))
