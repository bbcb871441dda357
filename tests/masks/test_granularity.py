import pytest
import torch
from torch import nn

import reference
from helpers import FLOAT8, Case, every_case, every_granularity
from secateurs import find_targets
from secateurs.masks.granularity import Units, units_of


@every_case
@every_granularity
def test_units_are_those_of_the_oracle(case: Case, granularity: str) -> None:
    weights = case.weights(case.model())
    for target in find_targets(case.model()):
        weight = weights[target.name]
        expected = reference.units(weight, granularity)
        units = units_of(target, granularity)
        assert units.count == len(expected)
        assert {units.size} == {len(elements) for elements in expected}
        numbers = torch.arange(len(weight.values), dtype=torch.float64).reshape(weight.shape)
        pooled = units.pool(numbers)
        assert tuple(pooled.shape) == units.unit
        assert pooled.reshape(-1).tolist() == [sum(elements) for elements in expected]
        for i, elements in enumerate(expected):
            mask = torch.zeros(len(expected), dtype=torch.bool)
            mask[i] = True
            spread = units.expand(mask.reshape(units.unit))
            assert tuple(spread.shape) == weight.shape
            assert spread.reshape(-1).nonzero().reshape(-1).tolist() == elements
            narrow = units.broadcastable(mask.reshape(units.unit))
            assert torch.equal(narrow.expand(weight.shape), spread)


@pytest.mark.parametrize(
    ("layer", "kernels", "filters"),
    [
        (nn.Conv1d(4, 6, 3), 24, 6),
        (nn.Conv2d(4, 6, 3, groups=2), 12, 6),
        (nn.Conv2d(4, 4, 3, groups=4), 4, 4),
        (nn.Conv3d(2, 3, 2), 6, 3),
        (nn.ConvTranspose2d(4, 6, 3), 24, 6),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), 12, 6),
        (nn.Linear(4, 6), 24, 6),
    ],
)
def test_counts_of_kernels_and_output_channels(
    layer: nn.Module, kernels: int, filters: int
) -> None:
    (target,) = find_targets(layer)
    assert units_of(target, "weight").count == layer.weight.numel()
    assert units_of(target, "kernel").count == kernels
    assert units_of(target, "filter").count == filters


def test_pruning_a_filter_silences_that_output_channel() -> None:
    """By what the layer computes, not by how its weight is laid out."""
    x = {1: torch.randn(1, 4, 5), 2: torch.randn(1, 4, 5, 5), 3: torch.randn(1, 4, 5, 5, 5)}
    for dims, names in {1: "1d", 2: "2d", 3: "3d"}.items():
        for kind in ("Conv", "ConvTranspose"):
            for groups in (1, 2, 4):
                layer = getattr(nn, kind + names)(4, 8, 3, groups=groups, bias=False)
                (target,) = find_targets(layer)
                units = units_of(target, "filter")
                dense = layer(x[dims])
                for channel in range(8):
                    keep = torch.ones(8, dtype=torch.bool)
                    keep[channel] = False
                    pruned = type(layer)(4, 8, 3, groups=groups, bias=False)
                    with torch.no_grad():
                        pruned.weight.copy_(layer.weight * units.expand(keep.reshape(units.unit)))
                    y = pruned(x[dims])
                    assert not y[:, channel].any()
                    others = [c for c in range(8) if c != channel]
                    torch.testing.assert_close(y[:, others], dense[:, others])


def test_parameters_without_two_dimensions_fall_into_elements() -> None:
    model = nn.Module()
    model.zero = nn.Parameter(torch.ones(()))
    model.one = nn.Parameter(torch.ones(3))
    for target in find_targets(model, layers="all"):
        for granularity in ("weight", "kernel", "filter"):
            assert units_of(target, granularity).count == target.parameter.numel()


def test_an_empty_weight() -> None:
    (target,) = find_targets(_empty())
    for granularity, count in (("weight", 0), ("kernel", 0), ("filter", 3)):
        units = units_of(target, granularity)
        assert (units.count, units.size) == (count, 0)
        assert units.pool(torch.empty(3, 0)).shape == torch.Size(units.unit)
        assert units.expand(torch.ones(units.unit, dtype=torch.bool)).shape == (3, 0)


def _empty() -> nn.Module:
    model = nn.Linear(1, 3, bias=False)
    model.weight = nn.Parameter(torch.empty(3, 0))
    return model


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, *FLOAT8]
)
def test_sums_are_wide_and_single_elements_keep_their_score(dtype: torch.dtype) -> None:
    row, element = Units((2, 3), (2, 3), (2, 1)), Units((2, 3), (2, 3), (2, 3))
    scores = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.5, 0.5]]).to(dtype)
    pooled = row.pool(scores)
    assert pooled.tolist() == [[7.0], [1.5]]
    assert pooled.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert element.pool(scores) is scores


def test_the_order_of_a_sum_does_not_matter() -> None:
    values = torch.randn(1, 10_000).half().abs()
    units = Units((1, 10_000), (1, 10_000), (1, 1))
    first = units.pool(values)
    for _ in range(5):
        assert torch.equal(units.pool(values[:, torch.randperm(10_000)]), first)
    assert first.item() == reference.l1(values[0].tolist(), wide=False)
    assert not torch.isinf(units.pool(torch.full((1, 10_000), 6e4).half())).any()
