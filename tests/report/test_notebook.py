from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from page_samples import HOSTILE
from torch import nn

import secateurs
from budget_rows import BUDGET
from repair_rows import make_repair_row
from result_rows import make_row
from retrain_rows import ROW
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import sweep
from secateurs.repair import RepairReport, StepReport
from secateurs.results import LayerRow, Record, Rows
from sensitivity_rows import make_sensitivity_row
from speed_rows import make_speed_row
from transfer_rows import make_benchmark

SWEEP = [make_row(p, 80 - 40 * p, model=HOSTILE) for p in (0.0, 0.4, 0.8)]
EPOCHS = [replace(ROW, phase="retrain", split="validation", epoch=epoch) for epoch in (1, 2)]
TRANSFER = make_benchmark(variants=["plain", "dwp 0.3 0.5"])


KINDS: dict[str, Sequence[Record]] = {
    "sweep": SWEEP,
    "retrain": EPOCHS,
    "transfer": TRANSFER,
    "budget": BUDGET,
    "repair": [make_repair_row(n, steps=f"step {n}", model=HOSTILE, top1=9.0) for n in range(4)],
    "sensitivity": [make_sensitivity_row("a", 0.5), make_sensitivity_row("b", 0.5)],
    "speed": [make_speed_row(0.0), make_speed_row(0.9, 2.0)],
}


@pytest.mark.parametrize("rows", KINDS.values(), ids=KINDS)
def test_rows_show_themselves(rows: Sequence[Record]) -> None:
    shown = Rows(rows)
    assert shown == list(rows)
    html = shown._repr_html_()
    assert html.count("<table>") == html.count("</table>") >= 1 and "<script" not in html
    figure = shown.plot(title="$ours$")
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    frame = shown.to_pandas()
    assert list(frame.columns) == list(type(rows[0]).columns()) and len(frame) == len(rows)


def test_curves_of_a_transfer() -> None:
    assert isinstance(Rows(TRANSFER).plot(kind="curves", outcome="untargeted"), Figure)
    with pytest.raises(InvalidArgumentError, match='give "heatmap" or "curves"'):
        Rows(TRANSFER).plot(kind="pie")
    both = [*TRANSFER, *make_benchmark(variants=["plain"], eps=0.5)]
    with pytest.raises(InvalidArgumentError, match="of 2 protocols"):
        Rows(both).plot()


def test_rows_without_a_section_of_a_page() -> None:
    row = LayerRow(
        model=HOSTILE, prune_type="global", granularity="weight", scope="global",
        score="magnitude", p_prune=0.5, p_bern=1.0, seed=0, layer="fc.weight", total=4, kept=2,
    )  # fmt: skip
    html = Rows([row])._repr_html_()
    assert "fc.weight" in html and "<script" not in html
    assert Rows()._repr_html_() == "<p>no rows</p>"


def test_sparsity_and_masks_show_themselves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    masks = secateurs.select(model, 0.5).draw(1.0)
    assert "0.weight" in masks._repr_html_() and isinstance(masks.plot(), Figure)
    counted = secateurs.sparsity(model)
    html = counted._repr_html_()
    assert "8 x 8" in html and "whole model" in html
    assert counted.plot(title="dense")._repr_png_().startswith(b"\x89PNG")
    frame = masks.table.to_pandas()
    assert list(frame["name"]) == ["0.weight", "1.weight"] and frame["zeros"].sum() == 40


def test_what_a_repair_returns_shows_itself() -> None:
    steps = [
        StepReport(("batchnorm", "reconstruct"), 1.5, (2.0, 0.5), (0.25, 0.75)),
        StepReport(("distill",), 3.0, (0.5, 0.25), (0.75, 1.0)),
    ]
    report = RepairReport(steps)
    assert list(report) == steps and "batchnorm, reconstruct" in report._repr_html_()
    assert isinstance(report.plot(title="$ours$"), Figure)
    frame = report.to_pandas()
    assert list(frame["stage"]) == ["pruned", "batchnorm, reconstruct", "distill"]
    assert list(frame["agreement"]) == [25.0, 75.0, 100.0]
    scored = RepairReport([replace(steps[0], accuracy=(0.125, 0.5))])
    assert list(scored.to_pandas()["top1"]) == [12.5, 50.0]
    with pytest.raises(InvalidArgumentError, match="no steps"):
        RepairReport().plot()


def test_sweep_and_readers_return_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    data = [(torch.rand(4, 3, 2, 2), torch.randint(3, (4,)))]
    found = sweep(model, data, p_prune=[0.0, 0.5], output=tmp_path, progress=False)
    assert isinstance(found, Rows) and isinstance(secateurs.results.read_rows(tmp_path), Rows)
