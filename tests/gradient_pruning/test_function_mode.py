"""Whichever way a network uses a masked weight: pruned, or an error that names it."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs as sc
from backward_cases import (
    StraightThroughLinears,
    close,
    draw,
    gradients,
    oracle_of,
    same_as_oracle,
    trained,
    upstream,
)


class Uses(nn.Module):
    """A network that does with its layer's weight whatever ``use`` does."""

    def __init__(self, use: Callable[[nn.Linear, Tensor], Tensor]):
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), nn.Linear(4, 4))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.body[1], x)


def points() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 4, dtype=torch.float64, requires_grad=True)


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        return 2 * weight

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return 2 * grad


REFUSED = [
    ("einsum", lambda layer, x: torch.einsum("ni,oi->no", x, layer.weight)),
    ("mul", lambda layer, x: F.linear(x, layer.weight * 2)),
    ("mean", lambda layer, x: F.linear(x, layer.weight - layer.weight.mean())),
    ("mean", lambda layer, x: layer(x) + layer.weight.mean()),
    ("normalize", lambda layer, x: F.linear(x, F.normalize(layer.weight))),
    ("cat", lambda layer, x: F.linear(x, torch.cat([layer.weight, layer.weight]))),
    ("stack", lambda layer, x: F.linear(x, torch.stack(tensors=(layer.weight,))[0])),
    ("chunk", lambda layer, x: F.linear(x, layer.weight.chunk(2)[0])),
    ("linear", lambda layer, x: F.linear(layer.weight, x)),
    ("matmul", lambda layer, x: x[0] @ layer.weight),
    ("matmul", lambda layer, x: layer.weight @ layer.weight),
    ("addmm", lambda layer, x: torch.addmm(layer.weight, x.T, x)),
    ("addmm", lambda layer, x: torch.addmm(layer.bias[:, None], layer.weight, x.T)),
    ("mul", lambda layer, x: x @ (layer.weight.T * 2)),
    ("sum", lambda layer, x: x * layer.weight[0].sum()),
    ("flip", lambda layer, x: x @ layer.weight.flip(0)),
]


@pytest.mark.parametrize(("function", "use"), REFUSED)
def test_a_weight_used_in_a_way_that_cannot_be_pruned_is_refused(
    function: str, use: Callable[[nn.Linear, Tensor], Tensor]
) -> None:
    model = Uses(use).double()
    expected = use(model.body[1], points())
    sc.gradient_prune(model, 0.5)
    message = rf"^Uses hands body\.1\.weight to {function}, .*: write exclude='\*body\.1\.weight'$"
    with pytest.raises(sc.FailureError, match=message):
        model(points())
    with torch.no_grad():  # no gradient, nothing to prune
        assert torch.equal(model(points()), expected)
    assert torch.equal(sc.restore(model)(points()), expected)


ALLOWED = [
    lambda layer, x: F.linear(x, layer.weight, layer.bias),
    lambda layer, x: F.linear(weight=layer.weight, bias=layer.bias, input=x),
    lambda layer, x: F.linear(x, layer.weight.to(x.dtype), layer.bias),
    lambda layer, x: F.linear(x, layer.weight.contiguous().clone(), bias=layer.bias),
    lambda layer, x: layer(x.to(layer.weight.dtype)),
    lambda layer, x: layer(x.to(layer.weight)),
    lambda layer, x: layer(x.type_as(layer.weight)),
    lambda layer, x: layer(x + layer.weight.new_zeros(4) + torch.zeros_like(layer.weight)[0]),
    lambda layer, x: layer(x) if layer.weight.requires_grad and layer.weight.dim() == 2 else x,
    lambda layer, x: layer(x) * layer.weight.shape[0] / layer.weight.size(1),
    lambda layer, x: layer(layer(x).tanh()),
]


@pytest.mark.parametrize("use", ALLOWED)
def test_other_uses_are_pruned_from_any_depth(use: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Uses(use).double()
    masks = draw(model)
    sc.apply_masks(model, masks, "gradient")
    output, found = gradients(model, points(), trained(model))
    sc.restore(model)
    with StraightThroughLinears(model, masks):
        expected_output, expected = gradients(model, points(), trained(model))
    assert torch.equal(output, expected_output)
    close(found, expected)


PRODUCTS = [
    lambda layer, x: x @ layer.weight.T,
    lambda layer, x: x @ layer.weight.t(),
    lambda layer, x: x @ torch.t(layer.weight) + layer.bias,
    lambda layer, x: x.matmul(layer.weight.mT),
    lambda layer, x: torch.mm(x, layer.weight.transpose(0, -1)),
    lambda layer, x: torch.mm(input=x, mat2=layer.weight),
    lambda layer, x: torch.matmul(x, layer.weight),
    lambda layer, x: torch.matmul(input=x, other=layer.weight),
    lambda layer, x: x.expand(2, 5, 3, 4) @ layer.weight,
    lambda layer, x: layer.weight @ x.T,
    lambda layer, x: layer.weight.matmul(x.expand(2, 3, 4).mT),
    lambda layer, x: x.expand(2, 3, 4).bmm(layer.weight[None][[0, 0]]),
    lambda layer, x: torch.bmm(layer.weight[None], x[None].mT),
    lambda layer, x: torch.addmm(layer.bias, x, layer.weight),
    lambda layer, x: layer.bias.addmm(x, layer.weight, beta=3, alpha=0.5),
    lambda layer, x: torch.addmm(input=x.detach(), mat1=x, mat2=layer.weight.T),
    lambda layer, x: x @ layer.weight.data.T,
    lambda layer, x: x @ layer.weight.detach().T,
    lambda layer, x: x @ layer.weight.float().to(x.dtype).T,
    lambda layer, x: F.linear(x, layer.weight[:2]),
    lambda layer, x: F.linear(x[:, 1:], layer.weight[1:, 1:], layer.bias[1:]),
    lambda layer, x: F.linear(x[:, :1], layer.weight[:, torch.tensor(2)][:, None]),
]


@pytest.mark.parametrize("use", PRODUCTS)
def test_products_with_a_weight_or_a_part_of_it(use: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Uses(use).double()
    layer = model.body[1]
    masks = draw(model)
    masked = copy.deepcopy(layer).requires_grad_(False)
    masked.weight.mul_(masks["body.1.weight"])

    def straight(x: Tensor) -> Tensor:
        pruned = use(masked, x)
        return use(layer, x.detach()) + (pruned - pruned.detach())

    def found(run: Callable[[Tensor], Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        output = run(x := points())
        wanted = (x, layer.weight, layer.bias)
        return output, torch.autograd.grad(output, wanted, upstream(output), allow_unused=True)

    output, expected = found(straight)
    sc.apply_masks(model, masks, "gradient")
    pruned_output, grads = found(model)
    with torch.no_grad():
        assert torch.equal(pruned_output, model(points()))
    torch.testing.assert_close(pruned_output, output)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("copied", ["detach", "data"])
def test_a_detached_weight_is_pruned_too(copied: str) -> None:
    def use(layer: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight.data if copied == "data" else layer.weight.detach())

    model = Uses(use).double()
    masks = draw(model)
    x = points()
    sc.apply_masks(model, masks, "gradient")(x).sum().backward()
    weight = model.body[1].weight
    torch.testing.assert_close(
        x.grad, (weight * masks["body.1.weight"]).detach().sum(0).expand(3, 4)
    )
    assert weight.grad is None


class Hidden(nn.Linear):
    """Its weight goes where no function mode sees it."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ Doubling.apply(self.weight)


class Idle(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("kind", [Hidden, Idle])
def test_a_layer_that_hides_its_weight_is_refused(kind: type[nn.Linear]) -> None:
    model = Chain(nn.Linear(4, 4), kind(4, 4), nn.Linear(4, 4))
    for layer in model.layers:  # that its weight is well used elsewhere does not help
        layer.weight = model.layers[0].weight
    sc.gradient_prune(model, 0.5)
    for called in (model, model.layers[1]):
        with pytest.raises(sc.FailureError, match=rf"^{kind.__name__} did not hand its weight"):
            called(torch.randn(2, 4))


def test_a_weight_that_is_exchanged_on_the_way_is_still_pruned() -> None:
    """As sharded training does: the parameters come when a layer's turn comes."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    torch.manual_seed(0)
    model = Body().double()
    masks = draw(model)
    reference = oracle_of(model, masks)
    fresh = nn.Parameter(model.second.weight.detach().clone())
    model.first.register_forward_hook(lambda *_: setattr(model.second, "weight", fresh))
    sc.apply_masks(model, masks, "gradient")
    (found,) = torch.autograd.grad(model(x := points()).sum(), x)
    assert model.second.weight is fresh
    (expected,) = torch.autograd.grad(reference(x := points()).sum(), x)
    torch.testing.assert_close(found, expected)


def test_a_pruned_network_outside_the_module_tree() -> None:
    """As attacks do that keep their ensemble in a plain list."""

    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.others = [Uses(lambda layer, x: F.linear(x, layer.weight)) for _ in range(2)]

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) + sum(other(x) for other in self.others)

    model = Ensemble()
    for network in (model, *model.others):
        sc.gradient_prune(network, 1.0)
    x = torch.randn(2, 4, requires_grad=True)
    assert not torch.autograd.grad(model(x).sum(), x)[0].any()
    sc.restore(model.others[1])
    assert torch.autograd.grad(model(x).sum(), x)[0].any()
    sc.gradient_prune(model.others[1], 1.0)
    model.others[1].use = lambda layer, x: x * layer.weight[0]
    with pytest.raises(sc.FailureError, match=r"^Uses hands body\.1\.weight to mul"):
        model(x)


def test_a_forward_that_was_replaced_on_the_instance_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    original = model[1].forward
    model[1].forward = lambda x: original(x)
    message = r"1\.weight cannot .* replaced on the instance: .* exclude='1\.weight'"
    with pytest.raises(sc.InvalidArgumentError, match=message):
        sc.gradient_prune(model, 0.5)
    assert type(model[0]) is nn.Linear
    sc.gradient_prune(model, 0.5, exclude="1.weight")


def test_modules_around_may_have_a_forward_of_their_own() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

    model = Outer()
    model.forward = lambda x: model.inner(x)
    sc.gradient_prune(model, 1.0)
    x = torch.randn(2, 4, requires_grad=True)
    model(x).sum().backward()
    assert not x.grad.any()
    assert type(model) is Outer


def test_a_transformers_model() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        image_size=8, patch_size=4, num_labels=3,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).double().eval()
    masks = draw(model)
    reference = oracle_of(model, masks)
    sc.apply_masks(model, masks, "gradient")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    for network in (model, reference):
        network.register_forward_hook(lambda module, args, output: output.logits)
    same_as_oracle(model, reference, x)
