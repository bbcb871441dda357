import pytest
import torch
from torch import nn

from helpers import Case, every_case, every_granularity
from secateurs import (
    InvalidArgumentError,
    Sparsity,
    apply_masks,
    global_prune,
    gradient_prune,
    make_permanent,
    restore,
    select,
    sparsity,
)
from secateurs.masks._sparsity import LayerSparsity


@every_case
@every_granularity
def test_the_count_is_that_of_the_masks(case: Case, granularity: str) -> None:
    model = case.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.float().abs() + 1)  # no zeros of its own
    assert sparsity(model).zeros == 0
    masks = select(model, 0.5, granularity=granularity).draw()
    found = sparsity(apply_masks(model, masks))
    assert found == masks.table
    assert [layer.name for layer in found] == list(case.targets)
    assert found.total == sum(model.get_parameter(n).numel() for n in case.targets)
    if granularity == "weight":
        assert found.zeros == round(0.5 * found.total)
    assert sparsity(restore(model)).zeros == 0


def test_zeros_of_the_model_itself_count_also_negative_ones() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, -0.0], [1e-45, 1.0]]))
    assert (sparsity(model).zeros, sparsity(model).ratio) == (2, 0.5)
    assert sparsity(model.half()).zeros == 3  # what underflows is zero
    assert sparsity(global_prune(model, 1)).ratio == 1.0


def test_the_backward_pass_is_counted_under_gradient_pruning() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    masks = select(model, 0.75, include="1").draw()
    found = sparsity(apply_masks(model, masks, "gradient"))
    assert [layer.ratio for layer in found] == [0.0, 0.75]
    kernel = gradient_prune(nn.Conv2d(4, 4, 3), 0.25, granularity="kernel")
    assert sparsity(kernel).ratio == 0.25
    # Zeros of the weights are zero in the backward pass, too.
    for granularity in ("weight", "kernel"):
        both = make_permanent(global_prune(nn.Conv2d(4, 4, 3), 0.75))
        sparse = both.weight == 0
        gradient_prune(both, 0.5, granularity=granularity, score="random", seed=0)
        inputs = torch.ones(1, 4, 3, 3, requires_grad=True)
        assert 108 < sparsity(both).zeros < 144
        kept = sparsity(both)["weight"].total - sparsity(both).zeros
        assert kept == sum(
            int(torch.autograd.grad(both(inputs)[0, out].sum(), inputs)[0].count_nonzero())
            for out in range(4)
        )
        assert torch.equal(both.weight == 0, sparse)


def test_layers_include_and_exclude() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Linear(2, 2))
    assert sparsity(model, layers="linear").total == 4
    assert sparsity(model, include="0").total == 8
    assert sparsity(model, exclude="0").total == 4
    with pytest.raises(InvalidArgumentError, match=r"nothing to count .* by layers='conv2d', or"):
        sparsity(model, layers="conv3d")
    with pytest.raises(InvalidArgumentError, match=r"are LSTM; .* by layers='recurrent', or"):
        sparsity(nn.LSTM(2, 2))


def test_a_table_of_counts() -> None:
    table = Sparsity(
        (LayerSparsity("a", (2, 3), 3, 6), LayerSparsity("long.name", (1000, 2), 0, 2000))
    )
    assert (table.zeros, table.total, len(table)) == (3, 2006, 2)
    assert table.ratio == 3 / 2006
    assert table["a"].ratio == 0.5
    assert [layer.name for layer in table] == ["a", "long.name"]
    with pytest.raises(KeyError, match="b"):
        table["b"]
    assert [line.split() for line in str(table).splitlines()] == [
        ["shape", "zero", "of", "ratio"],
        ["a", "2", "x", "3", "3", "6", "50.00%"],
        ["long.name", "1000", "x", "2", "0", "2,000", "0.00%"],
        ["total", "3", "2,006", "0.15%"],
    ]
    assert len({len(line) for line in str(table).splitlines()}) == 1


def test_nothing_is_not_sparse() -> None:
    assert LayerSparsity("empty", (0, 3), 0, 0).ratio == 0.0
    assert Sparsity(()).ratio == 0.0
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.empty(0, 2))
    assert sparsity(model).ratio == 0.0


def test_names_cannot_control_a_terminal() -> None:
    model = nn.Module()
    model.add_module("a\x1b[2J", nn.Linear(2, 2))
    assert "a\\x1b[2J.weight" in str(sparsity(model))
