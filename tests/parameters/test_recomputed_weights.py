import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs as sc
from secateurs import InvalidArgumentError, find_targets, global_prune, gradient_prune, restore


class Centred(nn.Linear):
    """A linear layer that subtracts the mean of each row."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


class Product(Centred):
    """The same as a product of matrices."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight - self.weight.mean(1, keepdim=True)).t() + self.bias


class PlainProduct(nn.Linear):
    """Keeps zeros, whichever way the weight lies."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, (2 * self.weight).t())


class Hidden(nn.Conv2d):
    """A convolution that does it in another method."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Counting(nn.Conv1d):
    """A transposed weight, a buffer, a child and a counter that a call changes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.BatchNorm1d(self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        weight = self.weight - self.weight.mean()
        return self.norm(F.conv1d(x, weight, self.bias))


class Scaled(nn.Conv2d):
    """Zeros stay zero."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, (self.weight * 0.5).round(decimals=3), self.bias)


class Broken(nn.Linear):
    """Runs on no input that is made up."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError


def timm_layers() -> list[nn.Module]:
    layers = pytest.importorskip("timm.layers")
    names = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
    return [getattr(layers, name)(4, 6, 3) for name in names]


def standardised() -> list[nn.Module]:
    found = [
        *timm_layers(),
        Centred(4, 4),
        Product(4, 4),
        Product(4, 3),
        Hidden(3, 4, 3),
        Counting(3, 4, 3),
    ]
    bit = pytest.importorskip("transformers.models.bit.modeling_bit")
    return [*found, bit.WeightStandardizedConv2d(3, 4, 3)]


@pytest.mark.parametrize("layer", standardised(), ids=lambda layer: type(layer).__name__)
def test_layers_that_do_not_keep_zeros_are_refused_by_type(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 2), layer, layer, type(layer)(4, 4, 3) if isinstance(
        layer, nn.modules.conv._ConvNd) else type(layer)(2, 2))  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    words = (
        rf"^2 of type {type(layer).__name__} \(1\.weight, 3\.weight\): forward computes other "
        r"weights .*or write exclude=\['1\.weight', '3\.weight'\]"
    )
    for function in (
        lambda m: sc.select(m, 0.5),
        lambda m: sc.select_levels(m, [0.5]),
        lambda m: global_prune(m, 0.5),
        lambda m: gradient_prune(m, 0.5),
        lambda m: sc.Diversified(m, 0.5, 0.5),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            function(model)
    # Looking left no trace.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [t.name for t in find_targets(model, exclude=["1.weight", "3.weight"])] == ["0.weight"]
    sc.select(model, 0.5, exclude=type(layer))


def test_zeros_of_a_standardised_weight_do_act() -> None:
    """What the refusal is about: of 90% zeros those in filters without any weight are left."""
    layer = timm_layers()[0]
    global_prune(layer, 0.9, layers=type(layer))
    weight = layer.weight.reshape(1, layer.out_channels, -1)
    effective = F.batch_norm(weight, None, None, training=True, momentum=0.0, eps=layer.eps)
    assert (layer.weight == 0).float().mean() > 0.89
    assert effective.reshape_as(layer.weight)[layer.weight.flatten(1).any(1)].all()


def test_the_type_by_name_prunes_what_is_stored() -> None:
    layer = timm_layers()[2]
    model = nn.Sequential(layer, nn.Conv2d(6, 2, 3))
    with pytest.raises(InvalidArgumentError) as caught:
        global_prune(model, 0.5)
    found = re.search(r"to prune the stored weights, layers=(\[.*\])$", str(caught.value))
    assert found is not None
    layers = eval(found[1], {type(layer).__name__: type(layer)})
    global_prune(model, 0.5, layers=layers)
    assert sc.sparsity(model, layers=layers).ratio == 0.5
    restore(model)
    # Of the backward pass not even that can be pruned: the layer hands on another weight.
    with pytest.raises(InvalidArgumentError, match="1 of type ScaledStdConv2d") as caught:
        gradient_prune(model, 0.5, layers=layers)
    assert "layers=" not in str(caught.value)
    with pytest.raises(InvalidArgumentError, match="1 of type ScaledStdConv2d"):
        global_prune(model, 0.5, layers=nn.Conv2d)  # a class above it does not mean it


@pytest.mark.parametrize(
    "layer", [Scaled(3, 4, 3), Broken(4, 4), PlainProduct(4, 4), PlainProduct(4, 6)]
)
def test_layers_that_keep_zeros_or_cannot_be_run_are_pruned(layer: nn.Module) -> None:
    global_prune(layer, 0.5)
    assert sc.sparsity(layer).ratio == 0.5


def test_ordinary_subclasses_are_not_run() -> None:
    layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(layers.Conv2dSame(3, 4, 3, stride=2), nn.Conv2d(4, 4, 1))
    assert sc.sparsity(global_prune(model, 0.5)).ratio == 0.5
    gradient_prune(model, 0.5)(torch.randn(1, 3, 8, 8, requires_grad=True)).sum().backward()


def test_a_network_of_them_is_one_error() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnetv2_50x1_bit", num_classes=3)
    for function in (sc.select, gradient_prune):
        with pytest.raises(InvalidArgumentError, match=r"^53 of type StdConv2d \(") as caught:
            function(model, 0.5)
        exclude = eval(re.search(r"exclude=(\[.*?\])", str(caught.value))[1])  # type: ignore[index]
        assert [t.name for t in find_targets(model, exclude=exclude)] == ["head.fc.weight"]


def test_a_layer_that_hands_on_another_weight_names_its_type() -> None:
    model = gradient_prune(nn.Sequential(Scaled(3, 3, 1), Scaled(3, 3, 1)), 0.5)
    words = r"Scaled hands weight to .*write exclude='\*weight', or exclude=Scaled for all layers"
    with pytest.raises(sc.FailureError, match=words):
        model(torch.randn(1, 3, 2, 2, requires_grad=True))


def test_functions_without_a_module() -> None:
    """As `exec` defines them: a layer's forward, and a score."""
    own: dict[str, Any] = {}
    source = "def forward(self, x):\n    return linear(x, self.weight, self.bias)"
    exec(source, {"linear": F.linear}, own)
    model = nn.Sequential(type("Own", (nn.Linear,), own)(4, 4), nn.Linear(4, 2))
    score = eval("lambda target: target.weight.abs()", {})
    assert own["forward"].__module__ is None is score.__module__
    assert sc.sparsity(global_prune(model, 0.5, score=score)).ratio == 0.5
    gradient_prune(restore(model), 0.5)(torch.ones(1, 4)).sum().backward()
