"""Kinds of layers beyond convolutions and `nn.Linear`: their weights, and the units of these."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference
import secateurs as sc
from helpers import GRANULARITIES, assert_same, bits, flags, snapshot
from secateurs.masks.granularity import units_of

RECURRENT = {
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, batch_first=True),
    "gru": lambda: nn.GRU(3, 4, bias=False, batch_first=True),
    "rnn": lambda: nn.RNN(3, 4, num_layers=2, batch_first=True),
    "lstm-cell": lambda: nn.LSTMCell(3, 4),
    "gru-cell": lambda: nn.GRUCell(3, 4),
}
every_recurrent = pytest.mark.parametrize("name", RECURRENT)


class Recurrent(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.core = RECURRENT[name]()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.core(x if isinstance(self.core, nn.RNNBase) else x[:, 0])
        return y[0] if isinstance(y, tuple) else y


def steps() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))


def weights_of(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if "weight_" in name and p.dim() == 2]


@every_recurrent
def test_recurrent_weights_compete_where_they_are_named(name: str) -> None:
    model = Recurrent(name)
    assert [t.name for t in sc.find_targets(model)] == ["head.weight"]
    for options in (
        {"include": "core"},
        {"layers": "recurrent"},
        {"layers": type(model.core)},
        {"include": "core.weight_*"},
    ):
        assert [t.name for t in sc.find_targets(model, **options)] == weights_of(model), options
    both = sc.find_targets(model, include=["*", "core"])
    assert [t.name for t in both] == [*weights_of(model), "head.weight"]
    (one,) = sc.find_targets(model, include=weights_of(model)[0])
    assert one.name == weights_of(model)[0]


@every_recurrent
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_recurrent_layers_are_pruned_by_the_weights_of_the_oracle(
    name: str, granularity: str
) -> None:
    model, x = Recurrent(name), steps()
    before, dense = snapshot(model), model(x)
    numbers = {n: reference.Weight.of(model.get_parameter(n)) for n in weights_of(model)}
    candidates = sc.select(model, 0.5, include="core", granularity=granularity)
    found = reference.candidates(numbers, 0.5, granularity, "global")
    assert {n: flags(mask) for n, mask in candidates.chosen.items()} == found
    sc.apply_masks(model, candidates.draw())
    by_hand = Recurrent(name)
    for n, mask in candidates.draw().items():
        by_hand.get_parameter(n).data.mul_(mask)
    assert torch.equal(model(x), by_hand(x))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), by_hand(x))
        assert torch.equal(sc.restore(other)(x), dense)
    assert_same(snapshot(sc.restore(model)), before)
    assert torch.equal(model(x), dense)


def test_a_filter_of_a_recurrent_layer_is_one_gate_of_one_unit() -> None:
    layer = nn.LSTM(3, 4, num_layers=2)
    for target in sc.find_targets(layer, layers="recurrent"):
        assert units_of(target, "filter").unit == (4 * 4, 1)
        assert units_of(target, "kernel").count == target.parameter.numel()


def test_what_a_recurrent_layer_keeps_elsewhere_stays_the_same() -> None:
    model = nn.LSTM(3, 4, num_layers=2)
    parameters, x = list(model._flat_weights), steps()
    for prune in (sc.global_prune, lambda m, p, **o: sc.restore(m), sc.global_prune):
        prune(model, 0.5, layers="recurrent")
        model.flatten_parameters()
        assert all(a is b for a, b in zip(parameters, model._flat_weights, strict=True))
        assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    model.double()
    assert all(a is b for a, b in zip(model._flat_weights, model.parameters(), strict=True))
    model.float()
    pruned = model(x)[0]
    pruned.sum().backward()
    assert parameters[0].grad is not None
    assert not torch.equal(sc.restore(model)(x)[0], pruned)


def test_what_cannot_be_right_for_recurrent_layers_is_refused() -> None:
    model = Recurrent("lstm")
    with pytest.raises(sc.InvalidArgumentError, match=r"none: 12 of LSTM \(core.weight_ih_l0, "):
        sc.gradient_prune(model, 0.5, include="core")
    with pytest.raises(sc.InvalidArgumentError, match="belongs to a recurrent layer") as caught:
        sc.Diversified(model, 0.5, 0.5, include="core")
    exclude = eval(str(caught.value).rpartition("exclude=")[2].partition(",")[0])
    with pytest.raises(sc.InvalidArgumentError, match="nothing to prune"):
        sc.Diversified(model, 0.5, 0.5, include="core", exclude=exclude)
    nn.utils.parametrizations.weight_norm(model.core, "weight_hh_l0")
    with pytest.raises(sc.InvalidArgumentError, match=r"weight_hh_l0 is not a parameter but"):
        sc.global_prune(model, 0.5, layers="recurrent")


class Filters(nn.Module):
    """The layer under test, and what its output units are."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_pruning_a_filter_silences_an_output_of_conv1d() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D

    class Sub(conv1d):
        pass

    for cls in (conv1d, Sub):
        model = Filters(cls(6, 4))
        (target,) = sc.find_targets(model)
        units = units_of(target, "filter")
        assert (units.count, units_of(target, "kernel").count) == (6, 24)
        for i in range(6):
            keep = torch.ones(6, dtype=torch.bool)
            keep[i] = False
            masks = sc.Masks({target.name: sc.Mask(keep.reshape(units.unit), units)})
            silent = sc.apply_masks(model, masks)(torch.ones(2, 4))[0] == model.layer.bias
            assert silent.nonzero().flatten().tolist() == [i]


class GroupedExperts(nn.Module):
    """As others than transformers write them: nothing but shapes says where outputs lie."""

    def __init__(self, up: tuple[int, int], down: tuple[int, int]) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(3, *up))
        self.w2 = nn.Parameter(torch.randn(3, *down))
        self.scales = nn.Parameter(torch.randn(3, 1, 1))


@pytest.mark.parametrize(
    ("up", "down", "columns"),
    [
        ((4, 10), (5, 4), True),
        ((10, 4), (4, 5), False),
        ((4, 8), (4, 4), True),
        ((8, 4), (4, 4), False),
        ((4, 4), (4, 4), False),
        ((5, 4), (4, 5), False),
    ],
)
def test_which_dimension_of_experts_is_that_of_outputs(up, down, columns) -> None:
    model = nn.ModuleDict({"moe": GroupedExperts(up, down)})
    found = sc.find_targets(model)
    assert [target.name for target in found] == ["moe.w1", "moe.w2"]
    assert {target.outputs_last for target in found} == {columns}
    model["moe"].is_transposed = not columns  # as transformers says it
    assert {target.outputs_last for target in sc.find_targets(model)} == {not columns}


def test_experts_by_the_name_of_their_module() -> None:
    body = nn.Module()
    body.register_parameter("w", nn.Parameter(torch.randn(3, 4, 5)))
    body.register_parameter("w_bias", nn.Parameter(torch.randn(3, 5)))
    model = nn.ModuleDict({"experts": body, "other": copy.deepcopy(body)})
    (target,) = sc.find_targets(model)
    assert (target.name, target.outputs_last) == ("experts.w", True)


class Routed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 2)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        weights = F.softmax(self.gate(x), -1)
        return sum(weights[..., i, None] * one(x) for i, one in enumerate(self.experts))


def test_routers_stay_unless_they_are_named() -> None:
    model = Routed()
    gate = bits(model.gate.weight)
    assert torch.equal(bits(sc.global_prune(model, 0.9).gate.weight), gate)
    names = ["gate.weight", "experts.0.weight", "experts.1.weight"]
    for options in ({"include": ["*", "gate"]}, {"layers": nn.Linear}):
        assert [t.name for t in sc.find_targets(model, **options)] == names
    with pytest.raises(sc.InvalidArgumentError, match="nothing to prune"):
        sc.find_targets(model, exclude="experts")
