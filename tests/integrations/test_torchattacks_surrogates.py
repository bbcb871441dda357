"""Surrogates in the real torchattacks, in the place of a network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from integration_cases import (
    ALPHA,
    EPS,
    STEPS,
    Recorder,
    bare,
    batch,
    check,
    check_nothing_pruned,
    every_surrogate,
    network,
)
from torch import Tensor, nn

import secateurs as sc
from secateurs.surrogates import mup

torchattacks = pytest.importorskip("torchattacks")

Attack = Callable[[nn.Module, bool], Tensor]

# Its options, and how many forward passes it makes in ten steps.
ATTACKS: dict[str, tuple[dict[str, Any], int]] = {
    "MIFGSM": ({}, 10),
    "NIFGSM": ({}, 10),
    "DIFGSM": ({}, 10),
    "TIFGSM": ({"len_kernel": 3}, 10),
    "PGD": ({}, 10),
    "EOTPGD": ({"eot_iter": 2}, 20),
    "SINIFGSM": ({"m": 2}, 20),
    "VMIFGSM": ({"N": 2}, 30),
}


def made(name: str, model: nn.Module, targeted: bool, **options: Any) -> Any:
    options = ATTACKS[name][0] | options
    attack = getattr(torchattacks, name)(model, eps=EPS, alpha=ALPHA, steps=STEPS, **options)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack


def of(name: str) -> Attack:
    images, labels, targets = batch()
    return lambda model, targeted: made(name, model, targeted)(
        images, targets if targeted else labels
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack(name: str) -> None:
    check("forward", of(name), forwards=ATTACKS[name][1])


@every_surrogate
def test_every_surrogate(kind: str) -> None:
    check(kind, of("MIFGSM"), forwards=10)


@pytest.mark.parametrize(
    ("name", "options", "forwards"),
    [("SINIFGSM", {"m": 5}, 50), ("VMIFGSM", {"N": 5}, 60), ("VNIFGSM", {}, 60), ("FGSM", {}, 1)],
)
def test_the_forward_passes_that_the_docs_name(
    name: str, options: dict[str, Any], forwards: int
) -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5)
    attack = getattr(torchattacks, name)
    attack(surrogate, eps=EPS, **options)(images[:2], labels[:2])
    assert surrogate.draws == forwards


@pytest.mark.parametrize("name", ["MIFGSM", "DIFGSM", "PGD"])
def test_no_candidates_no_difference(name: str) -> None:
    check_nothing_pruned(of(name))


def test_one_channel() -> None:
    images, labels, targets = batch(1)

    def attack(model: nn.Module, targeted: bool) -> Tensor:
        return made("MIFGSM", model, targeted)(images, targets if targeted else labels)

    check("forward", attack, forwards=10, channels=1)


def test_behind_a_normalisation() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(bare(), 0.5, 0.5)
    outside = nn.Sequential(network()[0], surrogate).eval()
    expected = of("MIFGSM")(sc.Diversified(network(), 0.5, 0.5), False)
    assert torch.equal(of("MIFGSM")(outside, False), expected)
    assert surrogate.draws == 10

    # The package can also normalise by itself; what it is given and gives is then normalised.
    surrogate.restart(0)
    attack = made("MIFGSM", surrogate, False)
    attack.set_normalization_used(mean=[0.5] * 3, std=[0.5] * 3)
    found = attack((images - 0.5) / 0.5, labels) * 0.5 + 0.5
    assert torch.allclose(found, expected, atol=1e-5)


def test_weights_that_want_no_gradient() -> None:
    expected = of("MIFGSM")(sc.Diversified(network(), 0.5, 0.5), True)
    frozen = sc.Diversified(network().requires_grad_(False), 0.5, 0.5)
    assert torch.equal(of("MIFGSM")(frozen, True), expected)


def test_training_mode_comes_back() -> None:
    images, labels, _ = batch()
    model = network()
    expected = of("MIFGSM")(sc.Diversified(network(), 0.5, 0.5), False)
    surrogate = sc.Diversified(model, 0.5, 0.5).train()
    assert torch.equal(made("MIFGSM", surrogate, False)(images, labels), expected)
    assert surrogate.training
    assert all(module.training for module in model.modules())
    statistics = dict(network().named_buffers())
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())


def test_targets_that_the_package_chooses_take_one_more_forward_pass() -> None:
    images, labels, _ = batch()
    for choose in ("set_mode_targeted_random", "set_mode_targeted_least_likely"):
        surrogate = sc.Diversified(network(), 0.5, 0.5)
        attack = made("MIFGSM", surrogate, False)
        getattr(attack, choose)(quiet=True)
        attack(images, labels)
        assert surrogate.draws == 11


def test_one_mask_for_all_passes_of_a_step() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5, redraw="step")
    surrogate.register_forward_pre_hook(Every(6))
    recorder = Recorder(surrogate)
    made("VMIFGSM", surrogate, False, N=5)(images, labels)
    assert (surrogate.draws, recorder.forwards) == (10, 60)
    kept = [masks.units["1.conv2.weight"].broadcastable for masks in recorder.masks[0]]
    same = [torch.equal(kept[i], kept[i + 1]) for i in range(59)]
    assert same == [i % 6 != 5 for i in range(59)]


class Every:
    """Tells a surrogate before each n-th call that a step is over: see docs/integrations.md."""

    def __init__(self, passes: int):
        self.passes, self.calls = passes, 0

    def __call__(self, surrogate: Any, args: Any) -> None:
        if self.calls % self.passes == 0:
            surrogate.step()
        self.calls += 1


def test_mup_asks_the_dense_network_too() -> None:
    images, labels, _ = batch()
    model = network()
    calls: list[nn.Module] = []
    model.register_forward_hook(lambda module, *_: calls.append(module))
    surrogate = mup(model, 0.3)
    surrogate.aim(labels, targeted=False)
    made("MIFGSM", surrogate, False)(images, labels)
    assert (surrogate.draws, len(calls)) == (10, 20)


def test_attacks_that_share_a_surrogate() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5)
    pair = torchattacks.MultiAttack([made(name, surrogate, False) for name in ("MIFGSM", "PGD")])
    found = pair(images, labels)
    assert (found - images).abs().max() <= EPS + 1e-6
    with surrogate.dense():
        assert (surrogate(found).argmax(1) != labels).double().mean() >= 0.9
