"""Models, examples and options that cannot be accelerated."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruned_networks import IMAGES, accelerate, network, pruned, replaced
from torch import nn
from torch.ao import quantization

import secateurs as sc
from secateurs.errors import InvalidArgumentError


def quantised(*, convert: bool = True, dynamic: bool = False) -> nn.Module:
    net = pruned()
    if dynamic:
        return quantization.quantize_dynamic(net, {nn.Linear})
    net = nn.Sequential(quantization.QuantStub(), net, quantization.DeQuantStub()).eval()
    net.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(net)
    prepared(IMAGES)
    return quantization.convert(prepared) if convert else prepared


def exported() -> nn.Module:
    return torch.export.export(pruned(), (IMAGES,)).module()


def on_meta() -> nn.Module:
    return network().to("meta")


def compiled_in_place() -> nn.Module:
    net = pruned()
    net.compile()
    return net


def gradient_pruned() -> nn.Module:
    net = network()
    sc.gradient_prune(net, 0.9)
    return net


def accelerated() -> nn.Module:
    net = pruned()
    accelerate(net)
    return net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (network, "no zeros to make use of: prune it first"),
        (nn.ReLU, "no zeros to make use of"),
        (
            lambda: torch.jit.script(pruned()),
            r"scripted or traced, .* runs dense: accelerate the model that it",
        ),
        (lambda: torch.compile(pruned()), "is compiled"),
        (compiled_in_place, "is compiled"),
        (quantised, "quantised, so its weights are packed integers"),
        (lambda: quantised(dynamic=True), "4 is quantised"),
        (lambda: quantised(convert=False), "observes values for quantisation"),
        (exported, "in an exported program they are functions"),
        (on_meta, "the model has no zeros.*left are 0 .it is on the meta device"),
        (lambda: nn.LSTM(2, 2), "left are the model .layers of type LSTM have no sparse kernel"),
        (gradient_pruned, "pruned in its backward pass alone"),
        (lambda: sc.Diversified(network(), 0.5, 0.5, seed=0), "pruned afresh at every call"),
        (accelerated, r"accelerated already.*if that is lost, copy\.deepcopy\(model\) is plain"),
        (lambda: 3, "model must be a torch.nn.Module"),
    ],
)
def test_models_that_cannot_be_accelerated_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        accelerate(make())


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (torch.rand(2, 5, 6, 6), "the model does not take the example input (2x5x6x6): Given"),
        ([], "example_input must be what the model is called with"),
        ("x", "got str without a tensor"),
        ((IMAGES, IMAGES), "does not take the example input (2x3x6x6, 2x3x6x6)"),
    ],
)
def test_examples_that_do_not_fit_are_refused(example: object, words: str) -> None:
    net = pruned()
    with pytest.raises(InvalidArgumentError) as error:
        accelerate(net, example)
    assert words in str(error.value)
    assert not replaced(net)


def test_whatever_a_model_raises_at_its_example_is_said() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = pruned()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[-1] == 224, "wrong height"
            return self.body(images)

    with pytest.raises(InvalidArgumentError, match=r"example input \(2x3x6x6\): wrong height"):
        accelerate(Picky())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"threads": 0}, "threads"), ({"margin": 2}, "margin"), ({"tolerance": -1}, "tolerance")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        accelerate(pruned(), **options)
