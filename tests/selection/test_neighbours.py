import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass as packed,
)
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_to_dense_cutlass,
)

import reference
import secateurs as sc
from helpers import DTYPES, FLOAT8, exact, flags
from secateurs import InvalidArgumentError

NUMBERS = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 1.5, -2.0, 3.0, math.inf, -math.inf])
SHAPES = [(2, 4), (3, 8), (1, 12), (2, 2, 2), (3, 1, 4, 2), (4, 4, 1, 1), (0, 4), (2, 0)]


def _conv1d() -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(3, 8)


class Experts(nn.Module):
    def __init__(self, shape: tuple[int, ...], *, is_transposed: bool):
        super().__init__()
        self.is_transposed = is_transposed
        self.weight = nn.Parameter(torch.randn(shape))


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    """Layers full of ties, in any dtype and memory format."""
    model = nn.Sequential()
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.sampled_from(SHAPES))
        count = math.prod(shape)
        values = torch.tensor(draw(st.lists(NUMBERS, min_size=count, max_size=count)))
        dtype = draw(st.sampled_from(DTYPES))
        if dtype in FLOAT8:  # some have no infinity
            values = values.nan_to_num(posinf=4.0, neginf=-4.0)
        values = values.view(shape).to(dtype)
        if len(shape) == 4 and draw(st.booleans()):
            values = values.to(memory_format=torch.channels_last)
        layer = nn.Linear(1, 1) if len(shape) == 2 else nn.Conv2d(1, 1, 1)
        layer.weight = nn.Parameter(values)
        model.append(layer)
    return model


@pytest.mark.parametrize(("scope", "ratio"), [("2:4", 0.5), ("1:4", 0.75), ("1:2", 0.5)])
@given(model=models(), nothing=st.booleans())
@exact(30)
def test_exactly_the_candidates_of_the_oracle(
    scope: str, ratio: float, model: nn.Module, nothing: bool
) -> None:
    targets = sc.find_targets(model)
    weights = {t.name: reference.Weight.of(t.parameter) for t in targets}
    if not any(w.values for w in weights.values()):
        return
    p_prune = 0.0 if nothing else ratio
    found = sc.select(model, p_prune, scope=scope)
    expected = reference.candidates(weights, p_prune, "weight", scope)
    assert {name: flags(mask) for name, mask in found.chosen.items()} == expected
    assert found.count == round(p_prune * found.total)
    assert sc.select_levels(model, [p_prune], scope=scope).at(p_prune) == found


@pytest.mark.parametrize(
    ("build", "groups", "outputs"),
    [
        (_conv1d, None, (1,)),
        (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), 2, None),
        (lambda: nn.ConvTranspose1d(8, 3, 3), 1, None),
        (lambda: nn.Conv2d(8, 4, (1, 2), groups=2), None, None),
        (lambda: nn.MultiheadAttention(4, 2), None, None),
        (lambda: Experts((2, 3, 4), is_transposed=False), None, (0, 1)),
        (lambda: Experts((2, 4, 3), is_transposed=True), None, (0, 2)),
        (lambda: nn.LSTM(4, 2, proj_size=0), None, None),
    ],
)
def test_the_inputs_of_an_output_are_neighbours(build: Any, groups: Any, outputs: Any) -> None:
    torch.manual_seed(0)
    model = build()
    others = [n for n, _ in model.named_parameters() if "bias" in n or "weight_hh" in n]
    options = {"layers": "all", "exclude": others or None}
    scores = {t.name: torch.rand(t.parameter.shape) for t in sc.find_targets(model, **options)}
    found = sc.select(model, scope="2:4", score=lambda t: scores[t.name], **options)
    for name, values in scores.items():
        weight = reference.Weight.of(values, groups, outputs)
        assert flags(found.chosen[name]) == reference.neighbours(weight, 2, 4)


def test_the_layout_is_that_of_the_flattened_weight() -> None:
    """So `torch.sparse.to_sparse_semi_structured` takes ``weight.flatten(1)``."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 8))
    sc.global_prune(model, scope="2:4")
    for weight in (model[0].weight, model[2].weight):
        assert set((weight.flatten(1).unflatten(1, (-1, 4)) != 0).sum(-1).flatten().tolist()) == {2}


def test_pruning_and_gradient_pruning_and_draws() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(8, 4), torch.randn(2, 8)
    dense = model(x)
    chosen = sc.select(model, scope="2:4").chosen["weight"]
    with sc.pruned(model, scope="2:4"):
        assert torch.equal(model.weight == 0, chosen)
    with sc.gradient_pruned(model, 0.5, scope="2:4"):
        assert torch.equal(model(x), dense)
    half = sc.select(model, scope="2:4").draw(0.5, seed=1)
    assert not (~half["weight"].bool() & ~chosen).any()
    assert 0 < half.sparsity < 0.5
    surrogate = sc.Diversified(model, None, 0.5, scope="2:4", seed=1)
    assert surrogate.candidates == sc.select(model, scope="2:4")
    assert "p_prune=0.5" in repr(surrogate)


@pytest.mark.parametrize(
    ("p_prune", "options", "words"),
    [
        (0.3, {}, r"^scope='2:4' prunes 0\.5 of all units, not 0\.3: write p_prune=0\.5, or"),
        (None, {"scope": "layer"}, r"^p_prune must be given: for a half write p_prune=0\.5$"),
        (None, {"scope": "4:2"}, "^scope='4:2' keeps 4 of every 2 inputs, so it must be .* less"),
        (None, {"scope": "0:4"}, "^scope='0:4' keeps 0 of every 4 inputs, so it must be at least"),
        (None, {"scope": "2-4"}, "^scope must be one of global, layer, N:M; got '2-4'"),
        (None, {"granularity": "kernel"}, "^scope='2:4' chooses single weights: write granularity"),
        (None, {"exclude": None}, r"^scope='2:4' needs inputs in groups of 4, and each output of "
         r"0\.weight has 27, as 1 more have no multiple of it: to keep them dense write "
         r"exclude=\['0\.weight', '1\.weight'\]$"),
        (None, {}, r"each output of 1\.weight has 9: .* exclude=\['0', '1\.weight'\]$"),
        (None, {"layers": "all", "exclude": ["0", "1.weight"]}, r"each output of 1\.bias has 1"),
    ],
)  # fmt: skip
def test_bad_input(p_prune: Any, options: dict[str, Any], words: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3))
    options = {"scope": "2:4", "exclude": "0", **options}
    with pytest.raises(InvalidArgumentError, match=words):
        sc.select(model, p_prune, **options)


def test_nan_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight.data[0, 0] = math.nan
    for p_prune in (0, 0.5):
        with pytest.raises(InvalidArgumentError, match=r"^the score of 1\.weight is NaN in places"):
            sc.select(model, p_prune, scope="2:4")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: nn.Linear(128, 64), lambda: nn.Conv2d(64, 32, 3)])
def test_what_is_kept_packs_into_the_layout_of_semi_structured_tensors(
    make: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    """By the packing behind ``torch.sparse.to_sparse_semi_structured``, which asks for a GPU."""
    torch.manual_seed(0)
    layer = make().to(dtype)
    dense = layer.weight.detach().flatten(1).clone()
    assert not torch.equal(sparse_semi_structured_to_dense_cutlass(*packed(dense)), dense)
    matrix = sc.global_prune(layer, scope="2:4").weight.detach().flatten(1)
    values, meta = packed(matrix)
    assert values.shape == (matrix.shape[0], matrix.shape[1] // 2)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, meta), matrix)
