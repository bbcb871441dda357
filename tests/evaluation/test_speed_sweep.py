"""`speed_sweep`: a row for each ratio, batch size and number of threads."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.acceleration.stopwatch import Functions
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import SpeedGrid, speed_sweep

IMAGE = torch.rand(12)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 3)).eval()


def measure(threads: int) -> Any:
    def seconds(functions: Functions) -> Mapping[str, float]:
        return {name: 1.0 if name == "dense" else 0.5 / threads for name in functions}

    return seconds


def test_all_combinations_are_measured_and_the_network_stays() -> None:
    net = network()
    before = [p.clone() for p in net.parameters()]
    grid = SpeedGrid(p_prune=(0.9, 0.0), batch_sizes=(1, 4), threads=(1, 2))
    rows = list(speed_sweep(net, IMAGE, grid, name="net", measure=measure))
    assert len(rows) == 8
    assert [row.p_prune for row in rows[:2]] == [0.0, 0.9]
    assert {(row.batch_size, row.threads, row.p_prune): row.speedup for row in rows} == {
        (batch, threads, ratio): 2.0 * threads if ratio else 1.0
        for batch in (1, 4)
        for threads in (1, 2)
        for ratio in (0.0, 0.9)
    }
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert type(net[0]) is nn.Linear
    assert (rows[1].replaced, rows[1].found) == (2, 2)
    again = speed_sweep(net, IMAGE, grid, name="net", done={row.key for row in rows})
    assert not list(again)


def test_zeros_that_are_there_count() -> None:
    net = network()
    sc.global_prune(net, 0.8)
    sc.make_permanent(net)
    assert SpeedGrid().ratios(net) == [0.0, 0.9, 0.95, 0.98]
    (row,) = speed_sweep(net, IMAGE, SpeedGrid((0,), (1,), (1,)), measure=measure)
    assert row.achieved == pytest.approx(0.8, abs=0.01)
    assert row.speedup == 2


@pytest.mark.parametrize(
    "wrong", [{"p_prune": (1.5,)}, {"batch_sizes": ()}, {"batch_sizes": (0,)}, {"threads": (0,)}]
)
def test_wrong_grids_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        SpeedGrid(**wrong)
