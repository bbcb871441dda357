"""Names with control characters in rows: tables and plots show them, and obey none."""

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hostile import HIDDEN, NAMES
from result_rows import make_row
from secateurs.report import (
    markdown_table,
    plot_sweep,
    plot_transfer_curves,
    plot_transfer_heatmap,
    print_table,
    print_transfer_table,
    transfer_table_markdown,
)
from secateurs.results import Row, TransferRow
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
    print_transfer_table(transfer_rows(name), console)
    markdown = markdown_table(sweep_rows(name)) + transfer_table_markdown(transfer_rows(name))
    for said in (text.getvalue(), markdown):
        assert not HIDDEN.search(said)
        assert said.encode() and "weight" in said
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)


def test_plots(tmp_path: Path) -> None:
    paths = [
        *plot_sweep(sweep_rows(ALL), tmp_path / "sweep", title=ALL),
        *plot_transfer_heatmap(transfer_rows(ALL), tmp_path / "heatmap", title=ALL),
        *plot_transfer_curves(transfer_rows(ALL), tmp_path / "curves", title=ALL),
    ]
    for svg in (path for path in paths if path.suffix == ".svg"):
        assert not HIDDEN.search(svg.read_text("utf-8"))
        ElementTree.parse(svg)
