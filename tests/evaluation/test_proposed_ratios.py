"""Proposed ratios cost least, and prune exactly what was asked for."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_nets import loader, network

import secateurs as sc
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import propose_ratios, sensitivity, sweep
from secateurs.repair import allocate, read_ratios, write_ratios
from secateurs.results import SensitivityRow
from sensitivity_rows import make_sensitivity_row


def rows_of(costs: dict[str, tuple[int, dict[float, float]]]) -> list[SensitivityRow]:
    """Rows of layers with some units and a cost at each ratio."""
    return [
        make_sensitivity_row(layer, ratio, units=units, divergence=cost)
        for layer, (units, curve) in costs.items()
        for ratio, cost in curve.items()
    ]


def curve(scale: float, power: float) -> dict[float, float]:
    return {ratio: scale * ratio**power for ratio in (0.25, 0.5, 0.75, 1.0)}


@pytest.mark.parametrize("p_prune", [0.0, 0.3, 0.5, 0.77, 1.0])
def test_no_other_counts_cost_less(p_prune: float) -> None:
    shapes = {"a": (12, (1.0, 2.0)), "b": (20, (0.3, 3.0)), "c": (7, (5.0, 1.5))}
    rows = rows_of({name: (units, curve(*shape)) for name, (units, shape) in shapes.items()})
    found = propose_ratios(rows, p_prune)
    total = round(p_prune * 39)
    counts = {name: round(found[name] * shapes[name][0]) for name in shapes}
    assert sum(counts.values()) == total

    def cost(given: dict[str, int]) -> float:
        parts = ((shapes[n][1], k / shapes[n][0]) for n, k in given.items())
        return sum(scale * ratio**power for (scale, power), ratio in parts)

    every = itertools.product(*(range(units + 1) for units, _ in shapes.values()))
    least = min(cost(dict(zip(shapes, ks, strict=True))) for ks in every if sum(ks) == total)
    assert cost(counts) == pytest.approx(least, rel=1e-6)


def test_noise_and_broken_networks_are_no_obstacle() -> None:
    rows = rows_of(
        {
            "flat": (10, {0.5: -0.1, 0.9: -0.2}),
            "broken": (10, {0.5: math.nan, 0.9: math.nan}),
            "dear": (10, {0.5: 1.0, 0.9: 2.0}),
        }
    )
    assert propose_ratios(rows, 0.3) == {"flat": 0.9, "broken": 0.0, "dear": 0.0}
    assert propose_ratios(rows, 0.6)["broken"] == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"p_prune": 0.95}, "measure higher ones, ratios="),
        ({"p_prune": 0.5, "cost": "accuracy"}, "needs labels"),
        ({"p_prune": 0.5, "cost": "luck"}, "cost"),
        ({"p_prune": 2}, "p_prune"),
    ],
)
def test_what_cannot_be_proposed_is_refused(options: dict[str, Any], said: str) -> None:
    rows = [make_sensitivity_row("a", 0.9, labels="dense", top1=90.0, dense_top1=100.0)]
    with pytest.raises(InvalidArgumentError, match=said):
        propose_ratios(rows, **options)
    with pytest.raises(InvalidArgumentError, match="no rows"):
        propose_ratios([], 0.5)


def test_a_sweep_measures_the_network_that_was_proposed(tmp_path: Path) -> None:
    rows = sensitivity(network(), loader(), ratios=[0.3, 0.6, 0.9], progress=False)
    for cost in ("divergence", "loss", "accuracy"):
        ratios = propose_ratios(rows, 0.5, cost)
        chosen = allocate(network(), None, ratios)
        assert chosen.count == round(0.5 * chosen.total)
    write_ratios(tmp_path / "ratios.json", ratios)
    assert read_ratios(tmp_path / "ratios.json") == ratios
    dense, pruned = sweep(network(), loader(), ratios=ratios, output=tmp_path / "run")
    assert (dense.p_prune, pruned.achieved) == (0.0, chosen.count / chosen.total)
    assert pruned.scope.startswith("ratios ") and len(pruned.scope) == 15
    assert json.loads((tmp_path / "run" / "config.json").read_text())["ratios"] == ratios
    model = network().eval()
    sc.apply_masks(model, chosen.draw())
    expected = sc.evaluation.accuracy(model, loader())
    assert (pruned.top1, pruned.loss) == pytest.approx((expected.top1, expected.loss), rel=1e-6)
    for other in ({"p_prune": 0.5}, {"scope": "layer"}):
        with pytest.raises(InvalidArgumentError, match="ratios says how much"):
            sweep(network(), loader(), ratios=ratios, **other)
