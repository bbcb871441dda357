import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.weight_norm import weight_norm

from secateurs import (
    Diversified,
    InvalidArgumentError,
    find_targets,
    global_prune,
    gradient_prune,
    select,
    sparsity,
)


class Property(nn.Linear):
    """Its weight is computed by a property."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.root = nn.Parameter(self._parameters.pop("weight").detach())

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return 2 * self.root


def pruned_by_torch() -> nn.Module:
    layer = nn.Linear(4, 4)
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


WAYS: list[tuple[Callable[[], nn.Module], str, str]] = [
    (
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
        "a parametrization",
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    (
        lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
        "a parametrization",
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    (
        lambda: weight_norm(nn.Linear(4, 4)),
        "the hook of torch.nn.utils.weight_norm",
        "torch.nn.utils.remove_weight_norm",
    ),
    (
        lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
        "the hook of torch.nn.utils.spectral_norm",
        "torch.nn.utils.remove_spectral_norm",
    ),
    (pruned_by_torch, "torch.nn.utils.prune", "torch.nn.utils.prune.remove"),
]
old = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
every_way = pytest.mark.parametrize(("build", "way", "call"), WAYS)


@old
@every_way
@pytest.mark.parametrize("layers", [None, "linear", "all", nn.Linear, ["all", "linear"]])
def test_the_advice_for_a_computed_weight_works(
    build: Callable[[], nn.Module], way: str, call: str, layers: object
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), build())
    before = model(torch.eye(4))
    words = rf"^1\.weight is not a parameter but computed by {re.escape(way)}: .*exclude='1'$"
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        find_targets(model, layers=layers)  # type: ignore[arg-type]
    found = re.search(r"make it permanent with (\S+\(.*?\), 'weight'\))", str(caught.value))
    assert found is not None
    assert found[1].startswith(call)
    eval(found[1], {"torch": torch, "model": model})
    assert torch.allclose(model(torch.eye(4)), before, atol=1e-5)
    assert "1.weight" in [t.name for t in find_targets(model, layers=layers)]  # type: ignore[arg-type]


@old
@every_way
def test_what_a_weight_is_computed_from_is_not_pruned_silently(
    build: Callable[[], nn.Module], way: str, call: str
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), build())
    with pytest.raises(InvalidArgumentError, match=r"1\.weight is not a parameter"):
        select(model, 0.5, layers="all")
    first = ["0.weight", "0.bias"]
    # Counting needs nothing that can be pruned, and leaves out the same.
    inside = {"1.bias"} if "1.bias" in dict(model.named_parameters()) else set()
    assert {layer.name for layer in sparsity(model, layers="all")} == {*first} | inside
    assert [t.name for t in find_targets(model, layers="all", exclude="1")] == first
    assert [t.name for t in find_targets(model, layers="all", include="0")] == first
    # Who names it means it.
    inner = next(n for n, p in model.named_parameters() if n.startswith("1.") and p.dim() == 2)
    assert [t.name for t in find_targets(model, layers="all", include=inner)] == [inner]


@old
def test_all_computed_weights_are_named_in_one_error() -> None:
    layers = [build() for build, _, _ in WAYS] + [Property()]
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(*layers))
    for function in (
        find_targets,
        lambda m: global_prune(m, 0.5),
        lambda m: gradient_prune(m, 0.5),
        lambda m: Diversified(m, 0.5, 0.5),
    ):
        with pytest.raises(
            InvalidArgumentError, match=r"^6 weights are not parameters but"
        ) as caught:
            function(model)
    for _, way, call in WAYS:
        assert way in str(caught.value)
        assert f"{call}(module, 'weight')" in str(caught.value) or "get_submodule" in str(
            caught.value
        )
    exclude = eval(str(caught.value).rpartition("exclude=")[2])
    assert [t.name for t in find_targets(model, exclude=exclude)] == ["0.weight"]


def test_many_of_one_kind_are_named_by_a_glob() -> None:
    blocks = [
        nn.ModuleDict({"fc": parametrizations.weight_norm(nn.Linear(2, 2)), "out": nn.Linear(2, 2)})
        for _ in range(12)
    ]
    model = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
    words = (
        r"^12 weights .*blocks\.\*\.fc\.weight.*remove_parametrizations\(module, 'weight'\), or "
    )
    with pytest.raises(InvalidArgumentError, match=rf"{words}write exclude='blocks\.\*\.fc'$"):
        find_targets(model)
    assert len(find_targets(model, exclude="blocks.*.fc")) == 12


def test_a_weight_that_a_property_computes_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Property())
    with pytest.raises(InvalidArgumentError, match=r"1\.weight is not .* by its module.*'1'"):
        find_targets(model)


def test_a_parametrized_bias_does_not_matter_to_weights() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    model = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(model, "bias", Twice())
    assert [t.name for t in find_targets(model)] == ["weight"]
    with pytest.raises(InvalidArgumentError, match=r"^bias is not a parameter"):
        find_targets(model, layers="all")


@pytest.mark.parametrize("options", [{"include": "1"}, {"layers": "conv", "include": "0"}])
def test_a_name_that_picks_any_kind_of_weight_picks_computed_ones(options: dict[str, str]) -> None:
    layers = [nn.Linear(4, 4), nn.Embedding(4, 4), nn.Conv1d(1, 1, 1)]
    for layer in layers[:2]:
        parametrizations.weight_norm(layer)
    words = rf"^{options['include']}\.weight is not a parameter but computed"
    with pytest.raises(InvalidArgumentError, match=words):
        find_targets(nn.Sequential(*layers), **options)  # type: ignore[arg-type]
