"""Gradient pruning under everything that transforms, replays or compiles a backward pass."""

import copy
import shutil
from collections.abc import Callable
from functools import partial
from operator import attrgetter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import secateurs as sc
from backward_cases import (
    close,
    draw,
    gradients,
    images,
    network,
    oracle,
    oracle_of,
    same_as_oracle,
    straight_through,
    trained,
    upstream,
)
from secateurs.training import GradientPruner


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def points() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(6, 5, dtype=torch.float64, requires_grad=True)


class SelfAttention(nn.Module):
    def __init__(self, need_weights: bool):
        super().__init__()
        self.attention = nn.MultiheadAttention(5, 1, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


def attention(need_weights: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return SelfAttention(need_weights).double()


MODELS = {
    "convolutions": (network, images),
    "linear": (mlp, points),
    "attention": (attention, points),
    "attention-weights": (lambda: attention(need_weights=True), points),
}
every_model = pytest.mark.parametrize("which", MODELS)


def model_of(which: str) -> tuple[nn.Module, Tensor]:
    build, inputs = MODELS[which]
    return build(), inputs()


CHANGES = {
    "nothing": lambda model: model,
    "restored": sc.restore,
    "pruned-otherwise": lambda model: sc.gradient_prune(model, 0.9),
    "emptied": lambda model: sc.gradient_prune(model, 0.0),
}


@every_model
@pytest.mark.parametrize("change", CHANGES)
def test_two_backward_passes_over_one_graph_agree(which: str, change: str) -> None:
    """The mask of the forward pass counts, whatever becomes of the model afterwards."""
    model, x = model_of(which)
    output = sc.gradient_prune(model, 0.5)(x)
    wanted = [x, *trained(model)]
    first = torch.autograd.grad(output, wanted, upstream(output), retain_graph=True)
    CHANGES[change](model)
    second = torch.autograd.grad(output, wanted, upstream(output))
    assert all(map(torch.equal, first, second))


@every_model
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing(which: str, use_reentrant: bool) -> None:
    model, x = model_of(which)
    sc.gradient_prune(model, 0.5)
    _, expected = gradients(model, x, trained(model))
    output = checkpoint(model, x, use_reentrant=use_reentrant)
    output.backward(upstream(output))
    close([x.grad, *(p.grad for p in trained(model))], expected)


@every_model
def test_compiled_whole(which: str) -> None:
    model, x = model_of(which)
    sc.gradient_prune(model, 0.5)
    expected_output, expected = gradients(model, x, trained(model))
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    output, found = gradients(compiled, x, trained(compiled))
    torch.testing.assert_close(output, expected_output)
    close(found, expected)
    torch.compiler.reset()


class Cast(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.double(), self.weight.double().contiguous(), self.bias.double())


def test_compiled_whole_where_weights_are_cast_on_the_way() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Cast(8, 6), nn.ReLU(), Cast(6, 4))
    x = torch.randn(3, 8, requires_grad=True)
    dense = gradients(model, x, [])[1][0]
    sc.gradient_prune(model, 0.5)
    _, expected = gradients(model, x, trained(model))
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    close(gradients(compiled, x, trained(compiled))[1], expected)
    assert not torch.equal(expected[0], dense)
    torch.compiler.reset()


def test_compiled_whole_frozen_in_eval_mode() -> None:
    """Where attention's fast path asks whether a function mode is active."""
    model, x = attention().eval().requires_grad_(False), points().detach()
    dense = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    expected = dense(x)
    compiled = torch.compile(sc.gradient_prune(model, 0.5), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), expected)
    torch.compiler.reset()


def test_a_compiled_model_notices_that_it_is_pruned_and_restored() -> None:
    model, x = network(), images()
    dense = gradients(model, x, [])[1][0]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(gradients(compiled, x, [])[1], [dense])
    sc.gradient_prune(model, 1.0)
    assert not gradients(compiled, x, [])[1][0].any()
    sc.restore(model)
    close(gradients(compiled, x, [])[1], [dense])
    torch.compiler.reset()


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler (g++)")
def test_compiled_by_inductor() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(64, 3, bias=False)
    )
    x = images(torch.float32)
    sc.gradient_prune(model, 0.5)
    _, expected = gradients(model, x, trained(model))
    compiled = torch.compile(model, fullgraph=True)
    _, found = gradients(compiled, x, trained(model))
    close(found, expected)
    torch.compiler.reset()


@every_model
def test_functional_gradients(which: str) -> None:
    model, x = model_of(which)
    model.eval()
    sc.gradient_prune(model, 0.5)
    parameters = dict(model.named_parameters())
    flow = upstream(model(x))

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return (torch.func.functional_call(model, parameters, (x,)) * flow).sum()

    expected = gradients(model, x, list(parameters.values()))[1]
    of_parameters, of_x = torch.func.grad(loss, (0, 1))(parameters, x)
    close([of_x, *of_parameters.values()], expected)
    _, pull = torch.func.vjp(lambda x: model(x), x)
    close(list(pull(flow)), expected[:1])


@pytest.mark.parametrize("which", ["convolutions", "linear"])
def test_gradients_of_each_sample(which: str) -> None:
    model, x = model_of(which)
    model.eval()
    sc.gradient_prune(model, 0.5)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss, (0, 1)), (None, 0))(parameters, x)
    for i in range(len(x)):
        expected = torch.autograd.grad(model(x[i : i + 1]).square().sum(), [x, *trained(model)])
        close([found[1][i]], [expected[0][i]])
        close([g[i] for g in found[0].values()], list(expected[1:]))


def test_an_ensemble_in_one_call_has_a_mask_for_each_member() -> None:
    members = [sc.gradient_prune(mlp(), p) for p in (0.2, 0.8)]
    x = points()
    parameters, _ = torch.func.stack_module_state(members)
    names = [f"{name}_backward_mask" for name in ("0.weight", "2.weight")]
    masks = {n: torch.stack([attrgetter(n)(member) for member in members]) for n in names}
    skeleton = copy.deepcopy(members[0])

    def gradient(parameters: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return torch.func.functional_call(skeleton, (parameters, masks), (x,)).sum()

        return torch.func.grad(loss)(x)

    found = torch.func.vmap(gradient)(parameters, masks)
    with pytest.raises(sc.FailureError, match="functional_call the masks, too"):
        torch.func.vmap(gradient)(parameters, {})
    for member, of_x in zip(members, found, strict=True):
        close([of_x], list(torch.autograd.grad(member(x).sum(), x)))


def test_forward_mode_is_refused_not_dense() -> None:
    model, x = sc.gradient_prune(mlp(), 0.5), points().detach()
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(model, (x,), (x,))


def test_a_gradient_penalty() -> None:
    """The pruned gradient is a function of the weights, and can be trained on."""
    model, x = mlp(), points()
    masks = draw(model)
    keep, w, b = (
        list(masks.values()),
        (model[0].weight, model[2].weight),
        (model[0].bias, model[2].bias),
    )
    hidden = torch.tanh(straight_through(x, w[0], keep[0], b[0]))
    output = straight_through(hidden, w[1], keep[1], b[1])
    by_hand = (2 * output @ (w[1] * keep[1]) * (1 - hidden**2)) @ (w[0] * keep[0])
    expected = torch.autograd.grad(by_hand.square().sum(), w)
    output = sc.apply_masks(model, masks, "gradient")(x)
    (of_x,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    torch.testing.assert_close(of_x, by_hand)
    close(list(torch.autograd.grad(of_x.square().sum(), w)), list(expected))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_training_goes_on_under_the_masks(optimizer: type[torch.optim.Optimizer]) -> None:
    """New weights are used at once, in both passes; the masks stay."""
    model, x = network(), images()
    step = optimizer(model.parameters(), lr=0.1)
    masks = draw(model)
    sc.apply_masks(model, masks, "gradient")
    for _ in range(3):
        reference = oracle_of(sc.restore(copy.deepcopy(model)), masks)
        same_as_oracle(model, reference, x)
        before = model.stem.weight.detach().clone()
        step.zero_grad()
        model(x).square().sum().backward()
        step.step()
        assert not torch.equal(before, model.stem.weight)


def test_gradients_add_up_and_hooks_on_tensors_fire() -> None:
    model, x = network().eval(), images()
    sc.gradient_prune(model, 0.5)
    _, expected = gradients(model, x, trained(model))
    seen: list[Tensor] = []
    model.stem.weight.register_hook(seen.append)
    for _ in range(2):
        output = model(x)
        output.backward(upstream(output))
    close([x.grad, *(p.grad for p in trained(model))], [2 * g for g in expected])
    close(seen, [expected[1]] * 2)


def test_saved_tensors_may_be_packed_away() -> None:
    model, x = nn.Conv2d(3, 4, 3).double(), images()
    masks = draw(model)
    reference = oracle(model, masks)
    sc.apply_masks(model, masks, "gradient")
    with torch.autograd.graph.save_on_cpu():
        same_as_oracle(model, reference, x)


@pytest.mark.parametrize(
    ("make", "shape", "granularity", "p_prune"),
    [
        (lambda: nn.Linear(500, 500), (60, 2, 500), "weight", 0.95),
        (lambda: nn.Linear(500, 500), (60, 2, 500), "filter", 0.5),
        (lambda: nn.Conv2d(64, 64, 3, padding=1), (3, 64, 32, 32), "kernel", 0.96),
        (lambda: nn.Conv2d(16, 16, 3, padding=1), (2, 16, 32, 32), "filter", 0.5),
        (lambda: SelfAttention(need_weights=False), (2, 3, 5), "weight", 0.5),
    ],
)
@pytest.mark.parametrize("weight_gradient", ["dense", "masked"])
def test_several_gradients_at_once(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    granularity: str,
    p_prune: float,
    weight_gradient: str,
) -> None:
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    GradientPruner(model, p_prune, weight_gradient=weight_gradient, granularity=granularity)
    for _ in range(2):  # sparse products are taken once a mask has stayed
        output, inputs = model(x), (x, *model.parameters())
        flows = torch.randn(2, *output.shape, dtype=torch.float64)
        grad = partial(torch.autograd.grad, output, inputs, retain_graph=True)
        found = grad(flows, is_grads_batched=True)
        close(found, [torch.stack(each) for each in zip(*map(grad, flows), strict=True)])


@pytest.mark.parametrize(
    ("make", "shape", "granularity"),
    [
        (lambda: nn.Linear(500, 500), (120, 500), "weight"),
        (lambda: nn.Conv2d(64, 64, 3, padding=1), (3, 64, 32, 32), "kernel"),
    ],
)
def test_a_backward_pass_under_autocast_of_a_forward_pass_without(
    make: Callable[[], nn.Module], shape: tuple[int, ...], granularity: str
) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape, requires_grad=True)
    GradientPruner(model, 0.96, weight_gradient="masked", granularity=granularity)
    model(x)  # sparse products are taken once a mask has stayed
    inputs = x, *model.parameters()
    expected = torch.autograd.grad(model(x).square().mean(), inputs)
    loss = model(x).square().mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(loss, inputs)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 0.02 * other.norm()


def test_a_backward_pass_in_inference_mode_leaves_nothing_that_later_ones_cannot_use() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(300, 300), torch.randn(4, 300, requires_grad=True)
    sc.gradient_prune(model, 0.3)  # of so large a mask, the product is written into scratch memory
    expected = torch.autograd.grad(model(x).sum(), x)
    sc.gradient_prune(sc.restore(model), 0.3)
    output = model(x).sum()
    with torch.inference_mode():
        torch.autograd.grad(output, x)
    close(torch.autograd.grad(model(x).sum(), x), expected)
