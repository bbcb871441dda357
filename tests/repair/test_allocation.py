from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs import InvalidArgumentError, RepairWarning
from secateurs.repair import allocate


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(64, 10))


def counts(model: nn.Module, *args: Any, **options: Any) -> dict[str, int]:
    chosen = allocate(model, *args, **options).chosen
    return {name: int(mask.sum()) for name, mask in chosen.items()}


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
@pytest.mark.parametrize("keep_at_least", [0.0, 0.07])
@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_the_count_in_all_is_exact(allocation: str, keep_at_least: float, granularity: str) -> None:
    model = network()
    for p_prune in (0.0, 0.123, 0.5, 0.85):
        found = allocate(
            model, p_prune, allocation, keep_at_least=keep_at_least, granularity=granularity
        )
        assert found.count == round(p_prune * found.total)
        for mask in found.chosen.values():
            assert mask.float().mean() <= 1 - keep_at_least


def test_global_without_a_floor_is_select() -> None:
    assert allocate(network(), 0.6) == sc.select(network(), 0.6)


def test_a_floor_is_a_share_in_decimal_numbers() -> None:  # 0.07 * 100 is more than 7
    model = nn.Linear(10, 10, bias=False)
    chosen = allocate(model, 0.93, "uniform", keep_at_least=0.07).chosen
    assert int(chosen["weight"].sum()) == 93


def test_the_smallest_of_each_layer_go() -> None:
    model = network()
    for target in sc.find_targets(model):
        chosen = allocate(model, 0.5, "erk").chosen[target.name]
        size = target.weight.abs()
        assert size[chosen].max() <= size[~chosen].min()


def test_what_each_allocation_means() -> None:
    model = network()  # 216, 1152 and 640 weights
    assert counts(model, 0.25, "uniform") == {"0.weight": 54, "1.weight": 288, "3.weight": 160}
    kept = {
        n: 1 - c / s
        for (n, c), s in zip(counts(model, 0.75, "erk").items(), (216, 1152, 640), strict=True)
    }
    shares = {"0.weight": 17 / 216, "1.weight": 30 / 1152, "3.weight": 74 / 640}
    for name, share in shares.items():
        assert kept[name] / share == pytest.approx(kept["1.weight"] / shares["1.weight"], rel=0.02)
    ratios = {"0.weight": 0.0, "1.weight": 1 / 3, "3.weight": 0.5}
    assert counts(model, None, ratios) == {"0.weight": 0, "1.weight": 384, "3.weight": 320}


def test_a_floor_takes_from_other_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 4, bias=False))
    model[0].weight.data = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    model[1].weight.data = torch.arange(1.0, 9.0).view(4, 2)
    with pytest.warns(RepairWarning, match=r"^0\.weight loses everything"):
        assert counts(model, 0.5) == {"0.weight": 4, "1.weight": 2}
    assert counts(model, 0.5, keep_at_least=0.25) == {"0.weight": 3, "1.weight": 3}


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((0.5, "erq"), {}, "allocation must be one of global, uniform, erk; .*did you mean erk"),
        ((), {}, "^p_prune must be given"),
        ((0.9,), {"keep_at_least": 0.2}, "^keep_at_least leaves .* less than 1807"),
        ((0.5,), {"keep_at_least": 2}, "^keep_at_least must be"),
        ((0.5,), {"scor": "lamp"}, "allocate has no argument scor"),
        ((None, {"0.wait": 0.5}), {}, r"ratio for '0\.wait', .*did you mean 0\.weight"),
        ((None, {"0.weight": 0.5}), {}, r"no ratio for 1\.weight"),
        ((0.5, dict.fromkeys(("0.weight", "1.weight", "3.weight"), 0.5)), {}, "leave out p_prune"),
        ((None, dict.fromkeys(("0.weight", "1.weight", "3.weight"), 0.5)), {"keep_at_least": 0.6},
         r"^keep_at_least forbids the ratio of 0\.weight"),
        ((None, {"0": 0.5, "0.weight": 0.5}), {}, r"two ratios for 0\.weight"),
        ((None, {"0": 1.5}), {}, r"^the ratio of '0' must be from 0 to 1"),
        ((0.5,), {"scope": "2:4", "exclude": "0"}, "^scope='2:4' allocates the same ratio"),
    ],
)  # fmt: skip
def test_bad_input(args: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        allocate(network(), *args, **options)
