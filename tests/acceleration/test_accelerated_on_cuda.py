"""Layers with two zeros among four neighbours, on a GPU that computes these faster."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.acceleration.layer_form import form_of
from secateurs.acceleration.observed_calls import is_close
from secateurs.acceleration.sparse_kernels import kernels_for
from secateurs.acceleration.stopwatch import Functions

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def two_of_four() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Linear(128, 128)
    with torch.no_grad():
        groups = layer.weight.view(-1, 4)
        groups.scatter_(1, groups.abs().topk(2, dim=1, largest=False).indices, 0.0)
    return nn.Sequential(layer).eval().cuda().half()


def test_two_of_four_is_tried_and_gives_the_same() -> None:
    net = two_of_four()
    images = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    kernels = kernels_for(form_of(net[0]), (64, 128))
    assert "2:4" in kernels
    with torch.no_grad():
        output = kernels["2:4"]()(images, net[0].bias)
        assert is_close(net(images), output, 4e-3)

    def measure(functions: Functions) -> dict[str, float]:
        return {n: {"2:4": 0.5, "accelerated": 0.5}.get(n, 1.0) for n in functions}

    made = sc.accelerate(net, images, tolerance=4e-3, measure=measure)
    assert made.layers[0].chosen == "2:4"


def test_float32_is_accelerated_by_the_clock_of_the_device() -> None:
    net = nn.Sequential(nn.Linear(256, 256)).eval().cuda()
    sc.global_prune(net, 0.95)
    images = torch.randn(4, 256, device="cuda")
    with sc.accelerate(net, images) as made, torch.inference_mode():
        output = net(images)
    assert made.speedup > 0
    torch.testing.assert_close(output, net(images), rtol=1e-3, atol=1e-4)
