"""The same images as the real torchattacks, for the attacks that draw no random numbers.

Its conventions differ from ours in what is random: its TI draws input diversity too, which is
switched off here, and its DI makes images smaller within their size and keeps them so, while ours
makes them larger and resizes them back. And an image whose gradient is once exactly zero never
moves again there, since its momentum is NaN from then on.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attack_nets import batch, digits, network
from secateurs.attacks import attack

torchattacks = pytest.importorskip("torchattacks")

EPS, ALPHA, STEPS = 16 / 255, 3 / 255, 8
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("MIFGSM", {"decay": 0.0}),
    "mi-ce": ("MIFGSM", {"decay": 1.0}),
    "mi0.5-ce": ("MIFGSM", {"decay": 0.5}),
    "ni-ce": ("NIFGSM", {"decay": 1.0}),
    "mi0.7-ni-ce": ("NIFGSM", {"decay": 0.7}),
    "ni-si-ce": ("SINIFGSM", {"decay": 1.0, "m": 5}),
    "ni-si3-ce": ("SINIFGSM", {"decay": 1.0, "m": 3}),
}
SMOOTHED = {
    "ti-ce": {"decay": 0.0, "len_kernel": 5},
    "mi-ti-ce": {"decay": 1.0, "len_kernel": 5},
    "mi-ti15-ce": {"decay": 1.0, "len_kernel": 15},
}


def theirs(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, kind: str, options: Any
) -> Tensor:
    made = getattr(torchattacks, kind)(model, eps=EPS, alpha=ALPHA, steps=STEPS, **options)
    if targeted:
        made.set_mode_targeted_by_label(quiet=True)
    return made(images, classes)


def ours(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, name: str) -> Tensor:
    options = {"method": name, "eps": EPS, "alpha": ALPHA, "steps": STEPS, "targeted": targeted}
    return attack([model], images, classes, **options)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_images_to_the_last_bits_of_a_double(name: str, targeted: bool) -> None:
    model = network()
    images, classes = batch(6)
    expected = theirs(model, images, classes, targeted, *KINDS[name])
    assert torch.allclose(ours(model, images, classes, targeted, name), expected, atol=1e-14)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("name", SMOOTHED)
def test_the_same_images_when_gradients_are_smoothed(name: str, targeted: bool) -> None:
    # Its kernel is single precision, and so is what is smoothed with it.
    model = network(dtype=torch.float32)
    images, classes = batch(6, dtype=torch.float32)
    options = {**SMOOTHED[name], "diversity_prob": 0.0}
    expected = theirs(model, images, classes, targeted, "TIFGSM", options)
    found = ours(model, images, classes, targeted, name)
    differ = ((found - expected).abs() > 1e-6).double().mean()
    assert differ < 0.002, "but for pixels whose gradient is nearly zero"


@pytest.mark.parametrize("name", ["mi-ce", "ni-ce", "ni-si-ce"])
def test_the_same_images_on_a_trained_network(name: str) -> None:
    model, images, labels = digits(28)
    model, images = model.double(), images.double()
    targets = (labels + 3) % 10
    expected = theirs(model, images, targets, True, *KINDS[name])
    assert torch.allclose(ours(model, images, targets, True, name), expected, atol=1e-12)
