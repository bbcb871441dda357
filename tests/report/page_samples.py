"""Runs on disk for the tests of pages, with names that a page must not run."""

from dataclasses import replace
from pathlib import Path

from budget_rows import BUDGET
from result_rows import make_row
from retrain_rows import ROW
from secateurs.results import (
    BudgetRow,
    LayerRow,
    Results,
    RetrainRow,
    TransferRow,
    write_layer_rows,
)
from transfer_rows import make_benchmark

HOSTILE = '</script><script>window.hurt = 1</script><img src=x onerror="hurt=1">\'ü→&amp;'
"""Closes a script element, begins one, and has quotes, entities and letters beyond ASCII."""

HEADED = "<b>fat</b> %{x}"
"""Plotly reads tags and patterns in its texts."""


def write_sweep(folder: Path, model: str = "torchvision:resnet18") -> Path:
    """Two granularities at four ratios, and what each layer kept."""
    rows = [
        make_row(
            p, 80 - 40 * p * p - number, granularity=kind, achieved=p / (1 + number), model=model
        )
        for number, kind in enumerate(("weight", "kernel"))
        for p in (0.0, 0.1, 0.2, 0.8)
    ]
    with Results(folder) as results:
        results.open({"model": model, "note": HOSTILE})
        results.add_all(rows)
    layers = [
        LayerRow(
            model=model, prune_type="global", granularity="weight", scope="global",
            score="magnitude", p_prune=p, p_bern=1.0, seed=0, layer=name, total=100,
            kept=round(100 - 100 * p),
        )
        for p in (0.1, 0.2, 0.8)
        for name in ("first.weight", HEADED)
    ]  # fmt: skip
    write_layer_rows(folder, layers)
    return folder


def write_transfer(folder: Path) -> Path:
    """Two variants on two targets."""
    with Results(folder, TransferRow) as results:
        results.open({"transfer": True})
        results.add_all(make_benchmark(variants=["plain", "dwp 0.3 0.5"]))
    return folder


def write_budget(folder: Path) -> Path:
    """Four networks that were tried, of a model with a name that a page must not run."""
    with Results(folder, BudgetRow) as results:
        results.open({"max_drop": 2.0})
        results.add_all(replace(row, model=HOSTILE) for row in BUDGET)
    return folder


def write_retraining(folder: Path, *, finished: bool = True) -> Path:
    """Two epochs without and two with masks, the scores, and a histogram."""
    rows: list[RetrainRow] = []
    shared = {"count": 100, "prunable": 1000, "split": "validation", "train_loss": 0.5}
    for phase, kept in (("dense", 1000), ("retrain", 250)):
        for epoch in (1, 2):
            measured = {"correct": 90 + epoch, "top1": 90.0 + epoch, "loss": 0.3}
            own = {"phase": phase, "epoch": epoch, "kept": kept, "achieved": 1 - kept / 1000}
            rows.append(replace(ROW, **shared, **measured, **own))
    if finished:
        rows.append(replace(rows[1], phase="test dense", split="test", correct=95, top1=95.0))
        rows.append(replace(rows[3], phase="test pruned", split="test", correct=94, top1=94.0))
    with Results(folder, RetrainRow) as results:
        results.open({"seeds": [0]})
        results.add_all(rows)
    layer = LayerRow(
        model="small", prune_type="global", granularity="weight", scope="global", score="magnitude",
        p_prune=0.75, p_bern=1.0, seed=0, layer="fc.weight", total=1000, kept=250, most=1.0,
        dense_counts="700;200;100", kept_counts="0;150;100",
    )  # fmt: skip
    write_layer_rows(folder, [layer])
    return folder
