from typing import Any

import numpy as np
import pytest
import torch

from secateurs.criteria import magnitude
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Grid
from secateurs.parameters.target import Target


def score(target: Target) -> torch.Tensor:
    return target.weight.abs()


def test_by_default_ten_ratios_of_one_setting() -> None:
    grid = Grid()
    assert [cell.p_prune for cell in grid.cells] == [i / 10 for i in range(10)]
    assert {cell.p_bern for cell in grid.cells} == {1.0}
    assert len(grid.variants) == 10


def test_a_cell_for_each_combination_each_once() -> None:
    grid = Grid(
        p_prune=[0.5, 0, 0.5, 0.0],
        p_bern=[0.5, 1, 1.0],
        prune_type=("global", "gradient"),
        granularity=["weight", "kernel", "kernel"],
        scope=["layer", "global"],
        score=["magnitude", score],
    )
    assert len(grid.cells) == 2 * 2 * 2 * 2 * 2 * 2
    assert grid.p_prunes == [0.0, 0.5]
    assert grid.p_berns == [1.0, 0.5]
    kinds = [(c.setting.granularity, c.setting.scope, c.setting.score_name) for c in grid.cells]
    assert kinds[0] == ("weight", "layer", "magnitude")
    assert kinds[-1] == ("kernel", "global", "score")


def test_the_dense_network_is_one_variant_and_comes_first() -> None:
    grid = Grid(p_prune=[0.5, 0], p_bern=[0, 1], granularity=["weight", "kernel"])
    assert [v.is_dense for v in grid.variants] == [True, False, False]
    assert len(grid.cells) == 8


def test_gradient_pruning_is_measured_and_not_assumed() -> None:
    assert len(Grid(p_prune=[0, 0.5], prune_type=["global", "gradient"]).variants) == 4


def test_only_what_is_random_is_drawn_several_times() -> None:
    grid = Grid(
        p_prune=[0, 0.5], p_bern=[1, 0.5, 0], score=["magnitude", "random"], draws=3, seed=7
    )
    seeds = {
        (cell.setting.score, cell.p_prune, cell.p_bern): [v.seed for v in cell.variants]
        for cell in grid.cells
    }
    drawn = {key for key, value in seeds.items() if value == [7, 8, 9]}
    assert drawn == {("magnitude", 0.5, 0.5), ("random", 0.5, 0.5), ("random", 0.5, 1.0)}
    assert all(value == [7] for key, value in seeds.items() if key not in drawn)


@pytest.mark.parametrize(
    "ratios", [np.array([0.0, 0.25]), torch.tensor([0.0, 0.25]), (0, 0.25), iter([0, 0.25])]
)
def test_ratios_come_as_any_sequence(ratios: Any) -> None:
    grid = Grid(p_prune=ratios, p_bern=[1, 0.5])
    assert [cell.p_prune for cell in grid.cells] == [0.0, 0.25] * 2
    assert grid.p_prunes == [0.0, 0.25]


@pytest.mark.parametrize("ratio", [0.25, np.float32(0.25), torch.tensor(0.25)])
def test_a_single_ratio_needs_no_list(ratio: Any) -> None:
    assert [cell.p_prune for cell in Grid(p_prune=ratio).cells] == [0.25]


def test_neighbours_are_measured_at_their_own_ratio() -> None:
    def ratios(**options: Any) -> list[tuple[str, float]]:
        return [(cell.setting.scope, cell.p_prune) for cell in Grid(**options).cells]

    assert ratios(scope="1:4") == [("1:4", 0), ("1:4", 0.75)]
    assert ratios(scope=["2:4", "layer"], p_prune=[0.3]) == [("2:4", 0.5), ("layer", 0.3)]
    with pytest.raises(InvalidArgumentError, match=r"^scope='2:4' prunes 0\.5 .* not 0\.3"):
        Grid(scope=["2:4", "1:4"], p_prune=[0.5, 0.3])


def test_two_scores_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="two scores are called '<lambda>'"):
        Grid(score=[lambda target: target.weight, lambda target: -target.weight])
    with pytest.raises(InvalidArgumentError, match="two scores are called 'magnitude'"):
        Grid(score=["magnitude", magnitude])
    assert len(Grid(p_prune=0.5, score=[score, score]).cells) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"p_prune": 1.2}, r"p_prune must be from 0 to 1 inclusive, got 1.2"),
        ({"p_prune": "half"}, r"p_prune must be a number from 0 to 1, got 'half'"),
        ({"p_prune": [0.1, None]}, r"p_prune must be a number"),
        ({"p_prune": [[0.1, 0.2]]}, r"p_prune must be a number"),
        ({"p_prune": []}, r"p_prune is empty; give at least one value"),
        ({"p_bern": -0.1}, r"p_bern must be from 0 to 1 inclusive"),
        ({"prune_type": "local"}, r"prune_type must be one of global, gradient; got 'local'"),
        ({"granularity": "kernels"}, r"did you mean kernel\?"),
        ({"granularity": [["kernel"]]}, r"granularity must be one of"),
        ({"scope": ()}, r"scope is empty"),
        ({"score": "l1"}, r"score must be one of magnitude"),
        ({"draws": 0}, r"draws must be a whole number from 1, got 0"),
        ({"draws": 1.5}, r"draws must be a whole number from 1, got 1.5"),
        ({"seed": 0.5}, r"seed must be an integer"),
        ({"seed": 2**64}, r"seed must fit into 64 bits"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Grid(**wrong)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_integers_of_any_kind(kind: Any) -> None:
    grid = Grid(p_prune=0.5, p_bern=0.5, draws=kind(2), seed=kind(255))
    assert grid.variants == Grid(p_prune=0.5, p_bern=0.5, draws=2, seed=255).variants
    assert (type(grid.draws), type(grid.seed)) == (int, int)
    assert all(type(variant.seed) is int for variant in grid.variants)
