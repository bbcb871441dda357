"""Gradient pruning layer by layer and network by network, against `backward_cases`' oracle."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs as sc
from backward_cases import (
    LAYERS,
    Layer,
    StraightThroughLinears,
    close,
    draw,
    gradients,
    images,
    network,
    oracle,
    oracle_of,
    same_as_oracle,
    trained,
    upstream,
)
from language_models import EXPERTS, language_model
from secateurs import InvalidArgumentError

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)


@every_layer
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_every_layer(layer: Layer, granularity: str) -> None:
    model, x = layer.module(), layer.inputs()
    masks = draw(model, granularity=granularity)
    reference = oracle(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, x)


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_the_forward_pass_is_dense_bit_for_bit(layer: Layer, training: bool) -> None:
    dense = layer.module(torch.float32).train(training)
    pruned, x = sc.gradient_prune(copy.deepcopy(dense), 0.5), layer.inputs(torch.float32)
    assert torch.equal(pruned(x), dense(x))
    assert torch.equal(pruned(x.detach()), dense(x.detach()))
    with torch.no_grad():
        assert torch.equal(pruned(x), dense(x))
    with torch.inference_mode():
        assert torch.equal(pruned(x), dense(x))


@every_layer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(layer: Layer, dtype: torch.dtype) -> None:
    model, x = layer.module(torch.float32), layer.inputs(torch.float32)
    masks = draw(model)
    reference = oracle(model, masks)
    dense = copy.deepcopy(model)
    sc.apply_masks(model, masks, "gradient")
    with torch.autocast("cpu", dtype):
        assert torch.equal(model(x), dense(x))
        _, found = gradients(model, x, trained(model))
        _, expected = gradients(reference, x, trained(reference))
    close(found, expected, rtol=2e-2, atol=2e-2)


@every_layer
def test_none_is_dense_and_all_stops_the_gradient(layer: Layer) -> None:
    dense, x = layer.module(torch.float32), layer.inputs(torch.float32)
    _, expected = gradients(dense, x, trained(dense))
    _, found = gradients(sc.gradient_prune(copy.deepcopy(dense), 0.0), x, trained(dense)[:0])
    assert torch.equal(found[0], expected[0])
    everything = sc.gradient_prune(copy.deepcopy(dense), 1.0)
    _, found = gradients(everything, x, trained(everything))
    assert not found[0].any()
    close(found[1:], expected[1:])  # weight and bias still learn


@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
@pytest.mark.parametrize("training", [True, False])
def test_a_network(granularity: str, training: bool) -> None:
    """One with a layer that is used twice in one forward pass."""
    model = network().train(training)
    masks = draw(model, granularity=granularity)
    reference = oracle_of(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, images())


def test_one_weight_in_two_modules_is_pruned_in_both() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 3, dilation=2)).double()
    model[2].weight = model[0].weight
    masks = draw(model)
    assert list(masks) == ["0.weight"]
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    weight, bias = model[0].weight, (model[0].bias, model[2].bias)
    pruned = weight.detach() * masks["0.weight"]
    output = sc.apply_masks(model, masks, "gradient")(x)
    flow = upstream(output)
    of_x, of_weight = torch.autograd.grad(output, (x, weight), flow)

    first, first_w = x.detach().requires_grad_(), weight.detach().clone().requires_grad_()
    hidden = torch.tanh(F.conv2d(first, first_w, bias[0]))
    second = hidden.detach().requires_grad_()
    (flow_hidden,) = torch.autograd.grad(F.conv2d(second, pruned, dilation=2), second, flow)
    second_w = weight.detach().clone().requires_grad_()
    F.conv2d(second, second_w, dilation=2).backward(flow)
    hidden.backward(flow_hidden)  # the first weight's gradient; the input's goes the pruned way
    flow_first = flow_hidden * (1 - hidden.detach().square())
    fresh = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad(F.conv2d(fresh, pruned), fresh, flow_first)
    close([of_x, of_weight], [expected, first_w.grad + second_w.grad])


@pytest.mark.parametrize("name", ["weight-shaped-input", "weight-shaped-image"])
def test_a_weight_is_recognised_by_identity_not_by_shape(name: str) -> None:
    """The input has the weight's very shape, and even its very values."""
    layer = next(layer for layer in LAYERS if layer.name == name)
    model = layer.module()
    x = model.weight.detach().clone().requires_grad_()
    masks = draw(model)
    reference = oracle(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, x)


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_frozen_weights_are_pruned_and_stay_frozen(granularity: str) -> None:
    model = network()
    model.body.requires_grad_(False)
    model.head.requires_grad_(False)
    masks = draw(model, granularity=granularity)
    reference = oracle_of(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, images())
    model(images()).sum().backward()
    assert model.head.weight.grad is None
    assert not model.head.weight.requires_grad
    assert model.stem.weight.grad is not None


def test_a_tied_embedding_learns_and_the_head_is_pruned() -> None:
    torch.manual_seed(0)
    embed, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    head.weight = embed.weight
    model = nn.Sequential(embed, nn.Tanh(), head).double()
    tokens = torch.tensor([1, 3, 1])
    masks = draw(model, include="0")
    output = sc.apply_masks(model, masks, "gradient")(tokens)
    flow = upstream(output)
    output.backward(flow)
    hidden = torch.tanh(embed.weight.detach()[tokens])
    expected = flow.T @ hidden
    into = (flow @ (embed.weight.detach() * masks["0.weight"])) * (1 - hidden.square())
    expected.index_add_(0, tokens, into)
    torch.testing.assert_close(embed.weight.grad, expected)


def test_subclasses_stay_and_keep_their_own_forward() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(2 * x, self.weight, self.bias)

    model = Doubled(2, 3, 3).double()
    masks = draw(model)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    reference = oracle(model, masks)
    sc.apply_masks(model, masks, "gradient")
    assert isinstance(model, Doubled)
    same_as_oracle(model, reference, x)
    assert type(sc.restore(model)) is Doubled


def test_a_copy_of_the_weight_in_another_dtype_is_the_weight() -> None:
    """As layers do that keep their weight in one precision and compute in another."""

    class Casting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.to(x.dtype).contiguous(), self.bias.to(x.dtype))

    model = Casting(4, 4)
    masks = draw(model)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    reference = oracle(model, masks)
    same_as_oracle(sc.apply_masks(model, masks, "gradient"), reference, x)


def test_timm_convolutions() -> None:
    layers = pytest.importorskip("timm.layers")
    model = layers.Conv2dSame(3, 4, 3, stride=2).double()
    masks = draw(model)
    reference = oracle(model, masks)
    sc.apply_masks(model, masks, "gradient")
    assert isinstance(model, layers.Conv2dSame)
    same_as_oracle(model, reference, images())


def test_swin_whose_attention_hands_on_its_childrens_weights() -> None:
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    torch.manual_seed(0)
    block = swin.SwinTransformerBlock(8, 2, [2, 2], [1, 1]).double()
    x = torch.randn(1, 4, 4, 8, dtype=torch.float64, requires_grad=True)
    masks = draw(block)
    reference = copy.deepcopy(block)
    sc.apply_masks(block, masks, "gradient")
    output, found = gradients(block, x, trained(block))
    with StraightThroughLinears(reference, masks):
        expected_output, expected = gradients(reference, x, trained(reference))
    assert torch.equal(output, expected_output)
    close(found, expected)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("name", EXPERTS)
def test_experts_of_transformers(name: str, implementation: str) -> None:
    pytest.importorskip("transformers")
    dtype = torch.float32 if implementation == "grouped_mm" else torch.float64
    model = language_model(name).to(dtype)
    masks = draw(model)
    x = torch.randn(1, 5, 16, dtype=dtype, requires_grad=True)

    def run(inputs: Tensor) -> Tensor:
        return model(inputs_embeds=inputs).logits

    model.set_experts_implementation(implementation)
    dense, parameters = run(x).detach(), [model.get_parameter(name) for name in masks]
    sc.apply_masks(model, masks, "gradient")
    output, found = gradients(run, x, parameters)
    assert torch.equal(output, dense)
    sc.restore(model)
    model.set_experts_implementation("eager")
    with StraightThroughLinears(model, masks):
        expected_output, expected = gradients(run, x, parameters)
    torch.testing.assert_close(output, expected_output)
    close(found, expected, **({"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {}))


def test_parameters_that_are_no_layers_weight_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2))
    for name in ("1.weight", "0.bias", "2.in_proj_bias"):
        with pytest.raises(InvalidArgumentError, match=rf"{name} belongs to .* exclude='{name}'"):
            sc.gradient_prune(model, 0.5, layers="all", include=name)
    words = (
        r"5 parameters are none: .*of Linear \(0\.bias\), 2 of LayerNorm \(1\.weight, 1\.bias\), "
        r".*write exclude="
    )
    with pytest.raises(InvalidArgumentError, match=words):
        sc.gradient_prune(model, 0.5, layers="all")
    assert [type(m) for m in model] == [nn.Linear, nn.LayerNorm, nn.MultiheadAttention]


def test_threads_do_not_disturb_each_other() -> None:
    models = [sc.gradient_prune(network(), p) for p in (0.2, 0.9)]
    alone = [gradients(model.eval(), images(), trained(model))[1] for model in models]
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work(which: int) -> None:
        start.wait()
        for _ in range(10):
            found = gradients(models[which], images(), trained(models[which]))[1]
            if not all(map(torch.equal, found, alone[which])):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
