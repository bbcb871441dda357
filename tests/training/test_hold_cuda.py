"""Held is held on a GPU: in a captured graph, under float16, and without waiting for the device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim
from training_cases import LABELS, assert_held, images, network, pruned

from secateurs.training import Cubic, GradientRegrowth, MagnitudeRegrowth, OneShot, Pruner, hold

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MAKE: dict[str, Callable[[Any], optim.Optimizer]] = {
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, foreach=True),
    "amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True, capturable=True),
    "fused": lambda p: optim.AdamW(p, 0.01, fused=True),
    "lbfgs": lambda p: optim.LBFGS(p, max_iter=3),
}


def loss_on(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(x), y)


@pytest.mark.parametrize("granularity", ["weight", "kernel"])
@pytest.mark.parametrize("kind", MAKE)
def test_zeros_are_held(kind: str, granularity: str) -> None:
    model = network().cuda().to(memory_format=torch.channels_last)
    masks = pruned(model, 0.5, granularity=granularity, scope="layer")
    optimizer = MAKE[kind](model.parameters())
    x, y = images().cuda(), LABELS.cuda()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_on(model, x, y)
        loss.backward()
        return loss

    with hold(model, optimizer):
        for _ in range(3):
            optimizer.step(closure)
        assert_held(model, optimizer, masks)


def test_a_step_does_not_wait_and_is_captured() -> None:
    model = network().cuda()
    masks, x, y = pruned(model), images().cuda(), LABELS.cuda()
    optimizer = MAKE["amsgrad"](model.parameters())
    hold(model, optimizer)

    def step() -> None:
        optimizer.zero_grad()
        loss_on(model, x, y).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    mode = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        step()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    before = model[4].weight.detach().clone()
    graph.replay()
    assert not torch.equal(model[4].weight, before)
    assert_held(model, optimizer, masks)


def test_a_scaler_under_float16() -> None:
    model = network().cuda()
    masks, x, y = pruned(model), images().cuda(), LABELS.cuda()
    optimizer = MAKE["fused"](model.parameters())
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)  # skips its first steps
    with hold(model, optimizer):
        for _ in range(30):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16):
                loss = loss_on(model, x, y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert_held(model, optimizer, masks)


@pytest.mark.parametrize(
    "regrow",
    [None, MagnitudeRegrowth(), GradientRegrowth(every=1, until=9, start="score")],
    ids=str,
)
def test_a_pruner_goes_on_on_the_device(regrow: Any) -> None:
    found: list[torch.Tensor] = []
    for device in ("cpu", "cuda"):
        model = network().to(device, torch.float64)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        pruner = Pruner(model, optimizer, OneShot(0.5, at=1), regrow=regrow)
        for _ in range(4):
            optimizer.zero_grad()
            loss_on(model, images().to(device, torch.float64), LABELS.to(device)).backward()
            optimizer.step()
            pruner.step()
        found.append(torch.cat([mask.flatten().cpu() for mask in pruner.masks.values()]))
    assert torch.equal(*found)


def test_a_layer_of_which_nothing_is_pruned_yet_keeps_what_it_learned() -> None:
    """A fused optimizer does not raise torch's version counter, and no gradient is left."""
    model = network().cuda()
    optimizer = optim.SGD(model.parameters(), 0.1, fused=True)
    pruner = Pruner(model, optimizer, Cubic(0.5, end=9))
    loss_on(model, images().cuda(), LABELS.cuda()).backward()
    optimizer.step()
    optimizer.zero_grad()
    learned = model[4].weight.detach().clone()
    pruner.replace_optimizer(optim.SGD(model.parameters(), 0.1))
    assert torch.equal(model[4].weight, learned)
