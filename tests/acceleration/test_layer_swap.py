"""Accelerated layers run dense where something is not as it was measured."""

import copy
import gc
import pickle
from collections.abc import Callable

import pytest
import torch
from pruned_networks import (
    IMAGES,
    ROWS,
    accelerate,
    network,
    perceptron,
    pruned,
    quietly,
    replaced,
)
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import secateurs as sc
from secateurs.errors import InvalidArgumentError


def change_mask(net: nn.Module) -> None:
    sc.global_prune(net, 0.3)


def load_others(net: nn.Module) -> None:
    net.load_state_dict(network().state_dict())


def set_data(net: nn.Module) -> None:
    net[4].weight.data = torch.ones_like(net[4].weight)


def move_memory(net: nn.Module) -> None:
    net[4].weight.data = net[4].weight.data.clone()


def new_parameter(net: nn.Module) -> None:
    net[4].weight = nn.Parameter(torch.ones(16, 288))


def restore_pruning(net: nn.Module) -> None:
    sc.restore(net)


@pytest.mark.parametrize(
    "change", [change_mask, load_others, set_data, move_memory, new_parameter, restore_pruning]
)
def test_changed_weights_are_noticed(change: Callable[[nn.Module], None]) -> None:
    net = pruned()
    made = accelerate(net)
    change(net)
    with torch.no_grad():
        output, said = quietly(lambda: net(IMAGES))
        _, again = quietly(lambda: net(IMAGES))
    assert "the weights were changed" in said[0]
    assert len(said) == 1
    assert not again
    made.restore()
    torch.testing.assert_close(output, net(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}])
def test_a_step_of_an_optimizer_is_noticed(options: dict[str, bool]) -> None:
    net = pruned()
    made = accelerate(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, **options)
    other = torch.optim.SGD(network().parameters(), lr=0.1)
    with torch.no_grad():
        other.step()
        _, said = quietly(lambda: net(IMAGES))
        assert not said  # other weights were changed
        for parameter in net.parameters():
            parameter.grad = parameter.clone()  # zeros stay zeros
        optimizer.step()  # a fused one leaves the weights' version counters as they are
        output, said = quietly(lambda: net(IMAGES))
        assert "the weights were changed" in said[0]
        assert torch.equal(output, copy.deepcopy(net)(IMAGES))
        made.refresh()
        _, said = quietly(lambda: net(IMAGES))
    assert not said


def test_an_accelerated_model_may_be_collected_while_an_optimizer_steps() -> None:
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    collected: list[int] = []
    gc.collect()
    gc.disable()
    net = pruned()
    net.cycle = [net]  # only the garbage collector frees it
    accelerate(net)
    del net
    handles = [
        register_optimizer_step_post_hook(hook)
        for hook in (lambda *_: collected.append(gc.collect()), lambda *_: None)
    ]
    try:
        optimizer.step()
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()
    assert collected[0]


def test_a_replaced_bias_or_stride_is_noticed() -> None:
    def double_bias(net: nn.Module) -> None:
        nn.utils.parametrize.register_parametrization(net[2], "bias", Doubled())

    def set_stride(net: nn.Module) -> None:
        net[0].stride = (2, 2)

    for change in (double_bias, set_stride):
        net = pruned()[:3]
        sc.make_permanent(net)
        accelerate(net)
        change(net)
        with torch.no_grad():
            output, said = quietly(lambda: net(IMAGES))  # noqa: B023
            expected = copy.deepcopy(net)(IMAGES)
        assert "the stride, padding, dilation, groups or bias of a layer was replaced" in said[0]
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


def test_a_parametrization_put_on_later_runs_dense_and_outlives_restore() -> None:
    net = pruned()
    sc.make_permanent(net)
    made = accelerate(net)
    nn.utils.parametrize.register_parametrization(net[5], "weight", Doubled())
    with torch.no_grad():
        expected, _ = quietly(lambda: copy.deepcopy(net)(IMAGES))
        output, _ = quietly(lambda: net(IMAGES))
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
        made.restore()
        torch.testing.assert_close(net(IMAGES), expected, rtol=1e-5, atol=1e-6)
    nn.utils.parametrize.remove_parametrizations(net[5], "weight")
    assert type(net[5]) is nn.Linear


def test_sparse_and_nested_inputs_run_dense() -> None:
    net = perceptron()
    accelerate(net, ROWS)
    sparse = ROWS[0].to_sparse()
    nested = torch.nested.nested_tensor([ROWS[0], ROWS[1, :2]])
    with torch.no_grad():
        assert torch.equal(net[0](sparse), copy.deepcopy(net)[0](sparse))
        assert torch.equal(net(nested)[0], copy.deepcopy(net)(nested)[0])


@pytest.mark.parametrize("change", [torch.jit.script, lambda net: sc.gradient_prune(net, 0.5)])
def test_what_cannot_be_done_to_an_accelerated_model_is_refused(
    change: Callable[[nn.Module], object],
) -> None:
    net = pruned()
    accelerate(net)
    with pytest.raises(InvalidArgumentError, match=r"accelerated.*call restore\(\)"):
        change(net)


def test_a_bias_is_read_anew() -> None:
    net = pruned()
    accelerate(net)
    with torch.no_grad():
        net[5].bias += 1
        before = copy.deepcopy(net)(IMAGES)
        torch.testing.assert_close(net(IMAGES), before, rtol=1e-5, atol=1e-6)


def test_another_shape_is_computed_dense_and_said_once() -> None:
    net = pruned()
    accelerate(net)
    others = torch.randn(3, 3, 6, 6)
    with torch.no_grad():
        output, said = quietly(lambda: net(others))
        assert torch.equal(output, copy.deepcopy(net)(others))
    assert len(said) == 1
    assert "(3, 3, 6, 6), and (2, 3, 6, 6) was measured" in said[0]


def dense_output(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return copy.deepcopy(net)(images)


@pytest.mark.parametrize(
    ("prepare", "images", "words"),
    [
        (lambda net: net.train(), IMAGES, "training mode"),
        (lambda net: net.double(), IMAGES.double(), "weights were changed, replaced or moved"),
        (lambda net: net.eval(), IMAGES, ""),
    ],
)
def test_a_model_that_runs_otherwise_falls_back(
    prepare: Callable[[nn.Module], object], images: torch.Tensor, words: str
) -> None:
    net = pruned()
    accelerate(net)
    prepare(net)
    with torch.no_grad():
        output, said = quietly(lambda: net(images))
    assert len(said) == bool(words)
    assert words in "".join(said)
    torch.testing.assert_close(output, dense_output(net, images), rtol=1e-5, atol=1e-6)


def test_gradients_flow_as_in_the_dense_model() -> None:
    net = pruned()
    accelerate(net)
    plain = copy.deepcopy(net)
    output, said = quietly(lambda: net(IMAGES))
    assert "gradients are needed" in said[0]
    output.sum().backward()
    plain(IMAGES).sum().backward()
    assert torch.equal(net[0].weight.grad, plain[0].weight.grad)


def test_autocast_and_threads_fall_back() -> None:
    net = pruned()
    accelerate(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output, said = quietly(lambda: net(IMAGES))
    assert output.dtype == torch.bfloat16
    assert "autocast" in said[0]
    other = accelerate(pruned(), threads=torch.get_num_threads() + 1)
    with torch.no_grad():
        _, said = quietly(lambda: other.model(IMAGES))
    assert "number of threads" in said[0]


def test_transforms_compute_dense() -> None:
    net = pruned()
    accelerate(net)
    with torch.no_grad():
        mapped, said = quietly(lambda: torch.func.vmap(net)(IMAGES[:, None]))
        assert not said
        torch.testing.assert_close(mapped[:, 0], net(IMAGES), rtol=1e-5, atol=1e-6)
        _, tangent = torch.func.jvp(net, (IMAGES,), (IMAGES,))
        assert tangent.shape == (2, 4)
        traced = torch.jit.trace(net, IMAGES)
        torch.testing.assert_close(traced(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-6)


def test_copies_and_pickles_are_of_the_plain_model() -> None:
    net = pruned()
    accelerate(net)
    for other in (copy.deepcopy(net), copy.copy(net[0]), pickle.loads(pickle.dumps(net))):
        assert not replaced(other)
    assert replaced(net)
    assert type(copy.deepcopy(net)[0]) is nn.Conv2d
