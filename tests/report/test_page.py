import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from page_samples import (
    HEADED,
    HOSTILE,
    write_budget,
    write_retraining,
    write_sweep,
    write_transfer,
)

from retrain_rows import ROW
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.report import write_page
from secateurs.report.page.html_page import page_text, sections_of
from secateurs.report.page.layer_charts import layer_charts
from secateurs.report.page.page_parts import Section
from secateurs.report.page.retrain_section import retrain_section
from secateurs.report.page.run_files import read_run
from secateurs.results import Results, TransferRow
from secateurs.results.run_command import COMMAND
from transfer_rows import make_benchmark

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """The elements of a page: their names, attributes and texts."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self.open and self.open[-1] != "style":
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(text) for attrs, text in self.scripts if attrs.get("class") == "figure"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_sweep(folder / "sweep", HOSTILE),
        write_transfer(folder / "transfer"),
        write_retraining(folder / "retrain"),
        write_budget(folder / "budget"),
    ]


@pytest.fixture(scope="module")
def text(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_page(runs, tmp_path_factory.mktemp("page") / "new" / "page.html")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def sections(*paths: Path) -> list[Section]:
    return sections_of([run for run in map(read_run, paths) if run])


def test_all_is_in_one_file(text: str, page: Page) -> None:
    assert len(text.encode()) < 2_500_000
    assert not page.open, "an element is left open"
    addresses = [a for _, attributes in page.elements for a in ("src", "href") if a in attributes]
    values = [e[a] or "" for _, e in page.elements for a in ("src", "href") if a in e]
    assert addresses and all(value.startswith("#") for value in values)
    policy = next(m for m in page.all("meta") if "http-equiv" in m)["content"] or ""
    assert policy.startswith("default-src 'none'")
    packed = next(data for attrs, data in page.scripts if attrs.get("id") == "plotly")
    assert b"Plotly" in gzip.decompress(base64.b64decode(packed))


def test_the_same_runs_give_the_same_page(runs: list[Path], text: str, tmp_path: Path) -> None:
    assert write_page(runs, tmp_path / "page.html").read_text(encoding="utf-8") == text


def test_text_of_rows_stays_text(text: str, page: Page) -> None:
    assert "hurt" in text and "<script>window.hurt" not in text and "<img" not in text
    assert not page.all("img")
    assert any(HOSTILE in said for said in page.texts)
    names = [
        trace["name"] for figure in page.figures for trace in figure["data"] if "name" in trace
    ]
    assert not [name for name in names if "<" in name]
    rows = [name for figure in page.figures for trace in figure["data"] for name in trace["y"]]
    assert "&lt;b&gt;fat&lt;/b&gt; %{x}" in rows
    assert any(HEADED in said for said in page.texts)


def test_what_a_reader_without_sight_or_mouse_needs(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    charts = [e for e in page.all("div") if e.get("class") == "chart"]
    assert charts and all(e["role"] == "img" and len(e["aria-label"] or "") > 30 for e in charts)
    assert len(page.all("figcaption")) == len(charts) == len(page.figures)
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html")[0]["lang"] == "en"
    inputs = page.all("input")
    assert inputs and all(e["type"] == "checkbox" for e in inputs)
    identities = [e["id"] for _, e in page.elements if "id" in e]
    assert len(identities) == len(set(identities))


def test_plotly_accepts_each_figure(page: Page) -> None:
    for figure in page.figures:
        made = go.Figure(figure)
        assert len(made.data) > 0


def test_each_trace_belongs_to_a_toggle_and_a_view_that_are_there(runs: list[Path]) -> None:
    for section in sections(*runs):
        for chart in section.charts:
            traces = [trace.get("meta", {}) for trace in chart.figure["data"]]
            toggles, views = ({m[n] for m in traces if n in m} for n in ("toggle", "view"))
            assert toggles == set(range(len(chart.toggles)))
            assert views == set(range(len(chart.views)))


def test_the_sweep_says_what_was_lost_and_how_to_repeat_it(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep")
    (section,) = sections(folder)
    assert section.headline == (
        "10% of the weights of resnet18 pruned, and top-1 less than one point below the dense "
        "network's (weight)."
    )
    assert [fact.value for fact in section.facts] == ["80.0%", "10%", "none"]
    table = section.tables[0]
    assert table.heads[:3] == ["granularity", "asked %", "pruned %"] and len(table.rows) == 7
    assert [cell.number for cell in table.rows[1]][:3] == [None, 10.0, 10.0]
    assert not section.commands, "rows alone do not say what was asked"
    command = {"command": "sweep", "options": ["--data", "a folder"]}
    (folder / COMMAND).write_text(json.dumps(command))
    (section,) = sections(folder)
    assert section.commands[0].text == "secateurs sweep --data 'a folder'"
    headings = [heading for heading, _ in section.details[0].tables]
    assert headings == ["The same in all rows", "Configuration", "Versions"]


def test_the_layers_of_a_model_are_shown_without_those_of_others(tmp_path: Path) -> None:
    rows = read_run(write_sweep(tmp_path / "one")).layers
    others = [replace(row, model="b", layer="fc", p_prune=0.5) for row in rows]
    (chart,) = layer_charts([*rows, *others])
    first, second = chart.figure["data"]
    assert (len(first["y"]), len(first["x"])) == (2, 3)
    assert (second["y"], second["x"]) == (["fc"], ["50%"])


def test_the_horizontal_axis_of_a_sweep(tmp_path: Path) -> None:
    run = read_run(write_sweep(tmp_path / "sweep"))
    assert run is not None
    kernels = [
        sections_of([run], x)[0].charts[0].figure["data"][3]["x"] for x in ("achieved", "p_prune")
    ]
    assert kernels == [[0, 5, 10, 40], [0, 10, 20, 80]]


def test_a_retraining(tmp_path: Path) -> None:
    (section,) = sections(write_retraining(tmp_path / "retrain"))
    assert section.headline == (
        "4.0 times fewer weights: the error on 100 images (test) went from 5.00% to 6.00%."
    )
    assert [chart.caption.split(",")[0] for chart in section.charts] == [
        "Validation accuracy of each epoch",
        "Weights kept in each layer",
        "Weights by absolute value: before any pruning",
    ]
    dense, kept = section.charts[2].figure["data"]
    assert (dense["y"], kept["y"]) == ([700, 200, 100], [0, 150, 100])
    assert [cell.text for cell in section.tables[1].rows[0]] == [
        "75", "fc.weight", "1,000", "250", "25.00",
    ]  # fmt: skip


def test_a_retraining_that_is_not_finished(tmp_path: Path) -> None:
    (section,) = sections(write_retraining(tmp_path / "retrain", finished=False))
    assert section.headline == "No seed has been scored on test images yet."
    assert section.charts and not section.facts


def test_a_table_has_every_digit_of_a_seed() -> None:
    (table,) = retrain_section([replace(ROW, seed=12_345_678)]).tables
    assert table.rows[0][0].text == "12345678"


def test_a_chart_of_few_epochs_without_a_dense_one() -> None:
    rows = [replace(ROW, phase="retrain", split="validation", epoch=epoch) for epoch in (1, 2, 3)]
    (chart,) = retrain_section(rows).charts
    assert [toggle.label for toggle in chart.toggles] == ["with masks"]
    assert chart.figure["layout"]["xaxis"]["nticks"] == 3, "no tick lies between two epochs"


def test_a_transfer(tmp_path: Path) -> None:
    (section,) = sections(write_transfer(tmp_path / "transfer"))
    heat = section.charts[0]
    assert heat.views == ["plain", "dwp 0.3 0.5", "dwp 0.3 0.5: points more than plain"]
    assert "dwp 0.3 0.5 fools the hold-outs in" in section.headline
    assert len(section.facts) == 3
    targeted, _ = section.tables
    assert targeted.caption == "Targeted success in percent"
    assert [row[1].text for row in targeted.rows][:2] == ["plain", "dwp 0.3 0.5"]


def test_a_search_comes_after_what_it_chose(tmp_path: Path) -> None:
    with Results(tmp_path / "t", TransferRow) as results:
        results.open({})
        for part, images in (("search", "aa"), ("report", "bb")):
            results.add_all(
                make_benchmark(variants=["plain", "dwp 0.3 0.5"], search_part=part, images=images)
            )
    titles = [section.title for section in sections(tmp_path / "t")]
    assert ["kept" in title for title in titles] == [True, False]


def test_runs_whose_sections_would_have_one_title_are_named(tmp_path: Path) -> None:
    paths = [write_retraining(tmp_path / name) for name in ("first", "second")]
    titles = [section.title for section in sections(*paths)]
    assert titles[0].endswith("pruned: first") and titles[1].endswith("pruned: second")


def test_a_title(runs: list[Path]) -> None:
    made = page_text(sections(runs[0]), title="<Ours>\x1b[2J")
    assert "<title>&lt;Ours&gt;" in made and "\x1b" not in made


def test_without_rows_there_is_no_page(tmp_path: Path) -> None:
    with Results(tmp_path / "begun") as results:
        results.open({})
    with pytest.raises(InvalidArgumentError, match="no finished rows in"):
        write_page([tmp_path / "begun"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_path_that_cannot_be_written(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match="cannot make the folder"):
        write_page(runs[:1], tmp_path / "file" / "page.html")
