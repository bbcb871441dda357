"""Names with control characters in rows: tables and plots show them, and obey none."""

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from budget_rows import BUDGET
from hostile import HIDDEN, NAMES
from repair_rows import make_repair_row
from result_rows import make_row
from retrain_rows import ROW
from secateurs.report import (
    markdown_table,
    plot_rows,
    plot_transfer_curves,
    plot_transfer_heatmap,
    print_table,
)
from secateurs.results import Row, TransferRow
from sensitivity_rows import make_sensitivity_row
from speed_rows import make_speed_row
from transfer_rows import make_benchmark

ALL = "|".join(NAMES.values())
"""One name with everything in it: a figure takes a while."""


def sweep_rows(name: str) -> list[Row]:
    names = {"model": name, "data": f"here/{name}", "split": name, "include": name}
    return [make_row(ratio, **names, score=score) for ratio in (0, 0.5) for score in (name, "b")]


def transfer_rows(name: str) -> list[TransferRow]:
    rows = make_benchmark(variants=["plain", f"dwp {name}"], targets=["timm:a", f"timm:{name}"])
    return [replace(row, data=name, split=name, surrogates=f"x;{name}") for row in rows]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_tables(name: str) -> None:
    text = io.StringIO()
    console = Console(file=text, width=300)
    print_table(sweep_rows(name), console)
    print_table(sweep_rows(name)[::2], console)
    print_table(transfer_rows(name), console)
    markdown = markdown_table(sweep_rows(name)) + markdown_table(transfer_rows(name))
    for said in (text.getvalue(), markdown):
        assert not HIDDEN.search(said)
        assert said.encode() and "weight" in said
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)


def test_tables_of_other_kinds() -> None:
    kinds: list[list[Any]] = [
        BUDGET,
        [make_repair_row(0), make_repair_row(1)],
        [make_sensitivity_row("a", 0.5)],
        [make_speed_row(0.0), make_speed_row(0.9, 2.0)],
        [replace(ROW, phase=phase) for phase in ("test dense", "test pruned")],
    ]
    text = io.StringIO()
    for rows in kinds:
        texts = {"model", "data", "split", "layer", "processor", "calibration", "steps"}
        names = dict.fromkeys(texts & set(rows[0].columns()), ALL)
        named = [replace(row, **names) for row in rows]
        print_table(named, Console(file=text, width=300))
        text.write(markdown_table(named))
    assert not HIDDEN.search(text.getvalue())


def test_plots(tmp_path: Path) -> None:
    paths = [
        *plot_rows(sweep_rows(ALL), tmp_path / "sweep", title=ALL),
        *plot_transfer_heatmap(transfer_rows(ALL), tmp_path / "heatmap", title=ALL),
        *plot_transfer_curves(transfer_rows(ALL), tmp_path / "curves", title=ALL),
    ]
    for svg in (path for path in paths if path.suffix == ".svg"):
        assert not HIDDEN.search(svg.read_text("utf-8"))
        ElementTree.parse(svg)
