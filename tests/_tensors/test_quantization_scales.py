"""Quantised weights in a model: a magnitude counts with the scale beside it."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs._tensors.quantization_scales import scale_steps, spread

FP8 = torch.float8_e4m3fn


class Quantised(nn.Linear):
    """As the quantised layers of transformers hold their weight and scale."""

    def __init__(self, scale: torch.Tensor, name: str = "weight_scale", buffer: bool = True):
        super().__init__(40, 48, bias=False)
        torch.manual_seed(0)
        values = (torch.randn(48, 40) * 50).to(FP8)
        self.weight = nn.Parameter(values, requires_grad=False)
        if buffer:
            self.register_buffer(name, scale)
        else:
            self.register_parameter(name, nn.Parameter(scale, requires_grad=False))


SCALES = {
    "tensor": (torch.tensor(0.01), (48, 40)),
    "channel": (torch.rand(48, 1), (1, 40)),
    "channel, one dimension": (torch.rand(48), (1, 40)),
    "blocks": (torch.rand(3, 3), (16, 16)),
}


@pytest.mark.parametrize("granularity", ["weight", "filter"])
@pytest.mark.parametrize("buffer", [True, False], ids=["buffer", "parameter"])
@pytest.mark.parametrize("kind", SCALES)
def test_a_magnitude_counts_with_its_scale(kind: str, buffer: bool, granularity: str) -> None:
    scale, steps = SCALES[kind]
    model = nn.ModuleDict({"a": Quantised(scale, buffer=buffer), "b": nn.Linear(16, 16)})
    whole = scale.reshape(-1, scale.shape[1]) if scale.dim() == 2 else scale.reshape(-1, 1)
    rows = torch.arange(48) // steps[0]
    columns = torch.arange(40) // steps[1]
    factor = whole[rows][:, columns]
    dense = nn.ModuleDict({"a": nn.Linear(40, 48, bias=False), "b": model["b"]})
    with torch.no_grad():
        dense["a"].weight.copy_(model["a"].weight.float() * factor)
    found = sc.select(model, 0.5, granularity=granularity).draw()
    expected = sc.select(dense, 0.5, granularity=granularity).draw()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("granularity", ["weight", "filter"])
@pytest.mark.parametrize("shape", [(40,), (1, 40)])
def test_a_scale_of_outputs_multiplies_columns_if_outputs_are_last(shape, granularity: str) -> None:
    torch.manual_seed(0)
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D
    dense, quantised = layer(40, 40), layer(40, 40)  # square: the shape alone says nothing
    scale = torch.rand(shape)
    values = (torch.randn(40, 40) * 50).to(FP8)
    quantised.weight = nn.Parameter(values, requires_grad=False)
    quantised.register_buffer("weight_scale", scale)
    dense.weight = nn.Parameter(values.float() * scale.reshape(1, 40))
    found = sc.select(quantised, 0.5, granularity=granularity).draw()
    expected = sc.select(dense, 0.5, granularity=granularity).draw()
    assert torch.equal(found["weight"], expected["weight"])


class TinyExperts(nn.Module):
    """Experts in one tensor with a scale for each output, in float8."""

    def __init__(self, values: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.up_proj = nn.Parameter(values, requires_grad=False)
        self.register_buffer("up_proj_scale", scale)


@pytest.mark.parametrize("granularity", ["weight", "filter"])
@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (3, 8, 1)])
def test_a_scale_of_stacked_experts(shape: tuple[int, ...], granularity: str) -> None:
    torch.manual_seed(0)
    scale, values = torch.rand(shape), (torch.randn(3, 8, 6) * 50).to(FP8)
    product = values.float() * scale.reshape(*shape, *[1] * (3 - len(shape)))
    found = sc.select(TinyExperts(values, scale), 0.5, granularity=granularity).draw()
    dense = sc.select(TinyExperts(product, scale), 0.5, granularity=granularity).draw()
    assert torch.equal(found["up_proj"], dense["up_proj"])


def test_pruning_and_restoring_a_quantised_layer() -> None:
    model = nn.Sequential(Quantised(torch.rand(48, 1), "weight_scale_inv"))
    before = model[0].weight.clone()
    sc.global_prune(model, 0.5)
    assert int((model[0].weight.float() == 0).sum()) == 48 * 40 // 2
    sc.restore(model)
    assert torch.equal(model[0].weight.view(torch.uint8), before.view(torch.uint8))


REFUSED = {
    "another shape": (Quantised(torch.rand(7, 3)), "has a scale of shape"),
    "one of no known kind": (
        Quantised(torch.rand(1), "weight_scaling_factor"),
        "quantised with weight_scaling_factor",
    ),
    "the greatest magnitude": (Quantised(torch.rand(1), "weight_amax"), "quantised with weight_a"),
    "a second scale": (Quantised(torch.rand(1), "weight_scale_2"), "quantised with weight_scale_2"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_scales_of_unknown_kinds_are_refused_by_name(kind: str) -> None:
    layer, complaint = REFUSED[kind]
    model = nn.Sequential(layer, nn.Linear(4, 4))
    with pytest.raises(sc.InvalidArgumentError, match=complaint) as caught:
        sc.select(model, 0.5)
    assert "exclude='0.weight'" in str(caught.value)
    assert list(sc.select(model, 0.5, exclude="0").draw()) == ["1.weight"]


@pytest.mark.parametrize("name", ["weight_scale", "scale", "weight_scaling_factor"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_a_scale_that_is_a_parameter_is_no_weight(name: str, dtype: torch.dtype) -> None:
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
    layer.register_parameter(name, nn.Parameter(torch.rand(1), requires_grad=False))
    model = nn.Sequential(layer, nn.Linear(4, 4))
    found = [t.name for t in sc.find_targets(model, layers="all")]
    quantised = ["0.weight"] if dtype.is_floating_point else []
    assert found == [*quantised, "0.bias", "1.weight", "1.bias"]
    named = sc.find_targets(model, layers="all", include=f"0.{name}")
    assert [t.name for t in named] == [f"0.{name}"]


@pytest.mark.parametrize("name", ["something", "input_scale", "k_scale"])
def test_float8_without_a_scale_is_taken_as_it_is(name: str) -> None:
    model = nn.Sequential(Quantised(torch.rand(48, 1), name))
    worth = model[0].weight.float().abs()
    keep = sc.select(model, 0.5).draw()["0.weight"]
    assert worth[keep].min() >= worth[~keep].max()


STEPS = {
    ((192, 96), (2, 2), (128, 64)): (128, 64),
    ((256, 256), (2, 2), None): (128, 128),
    ((576, 256), (5, 2), None): (128, 128),
    ((4, 64, 32), (4, 1, 1), None): (1, 64, 32),
    ((4, 64, 32), (4, 64, 1), None): (1, 1, 32),
    ((4, 256, 128), (4, 2, 1), (128, 128)): (1, 128, 128),
    ((8, 3, 3, 3), (8, 1, 1, 1), None): (1, 3, 3, 3),
}


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_how_many_neighbours_share_a_scale(case) -> None:
    shape, scale, block = case
    assert scale_steps("w", shape, scale, block) == STEPS[case]
    numbers = torch.rand(scale)
    wide = spread(numbers, shape, STEPS[case])
    assert wide.shape == shape
    last = tuple(size - 1 for size in shape)
    assert wide[last] == numbers[tuple(size - 1 for size in scale)]


@pytest.mark.parametrize(
    "case", [((192, 96), (2, 1)), ((8, 8), (16, 8)), ((8, 8), (0, 8)), ((8,), (3,))]
)
def test_unclear_shapes_are_refused(case) -> None:
    with pytest.raises(sc.InvalidArgumentError, match="dequantise"):
        scale_steps("w", *case)
