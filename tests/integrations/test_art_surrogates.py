"""Surrogates in the real adversarial-robustness-toolbox, behind its PyTorchClassifier."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from integration_cases import (
    ALPHA,
    EPS,
    STEPS,
    Normalise,
    bare,
    batch,
    check,
    check_nothing_pruned,
    every_surrogate,
    network,
)
from torch import Tensor, nn

import secateurs as sc

pytest.importorskip("art")

# It looks at the success when an untargeted attack is over: at the images, and at those it made.
LOOKS = 2
ATTACKS = ("ProjectedGradientDescent", "MomentumIterativeMethod", "random-start")


def classifier(model: nn.Module, preprocessing: Any = (0.0, 1.0)) -> Any:
    from art.estimators.classification import PyTorchClassifier

    images, _, _ = batch()
    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        preprocessing=preprocessing,
        device_type="cpu",
    )


def made(name: str, model: nn.Module, targeted: bool = False, **options: Any) -> Any:
    from art.attacks import evasion

    kinds = {"random-start": ("ProjectedGradientDescent", {"num_random_init": 1})}
    kind, given = kinds.get(name, (name, {}))
    given |= {"eps": EPS, "eps_step": ALPHA, "max_iter": STEPS, "verbose": False} | options
    seen = model if not isinstance(model, nn.Module) else classifier(model)
    return getattr(evasion, kind)(seen, targeted=targeted, **given)


def of(name: str) -> Callable[[nn.Module, bool], Tensor]:
    images, labels, targets = batch()

    def attack(model: nn.Module, targeted: bool) -> Tensor:
        given = targets if targeted else labels
        return torch.from_numpy(
            made(name, model, targeted).generate(images.numpy(), y=given.numpy())
        )

    return attack


# Targets are looked for in the images that it made alone.
FORWARDS = (STEPS + LOOKS, STEPS + LOOKS - 1)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack(name: str) -> None:
    check("forward", of(name), forwards=FORWARDS)


@every_surrogate
def test_every_surrogate(kind: str) -> None:
    # Its root is a Sequential, which the package would take apart.
    check(kind, of("ProjectedGradientDescent"), forwards=FORWARDS)


def test_no_candidates_no_difference() -> None:
    check_nothing_pruned(of("ProjectedGradientDescent"))


def test_a_sequential_root_is_not_taken_apart() -> None:
    images, _, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5)
    logits = torch.from_numpy(classifier(surrogate).predict(images.numpy()))
    assert surrogate.draws == 1
    assert torch.equal(logits, sc.apply_masks(network(), surrogate.masks)(images))


def test_a_surrogate_inside_of_a_sequential() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(bare(), 0.5, 0.5)
    expected = of("ProjectedGradientDescent")(sc.Diversified(network(), 0.5, 0.5), False)
    for model, preprocessing in (
        (nn.Sequential(Normalise(), surrogate), (0.0, 1.0)),
        (surrogate, (0.5, 0.5)),
    ):
        surrogate.restart(0)
        attack = made("ProjectedGradientDescent", classifier(model, preprocessing))
        found = torch.from_numpy(attack.generate(images.numpy(), y=labels.numpy()))
        assert torch.equal(found, expected)
        assert surrogate.draws == FORWARDS[False]


def test_forward_passes_of_several_batches() -> None:
    images, labels, _ = batch()
    surrogate, size = sc.Diversified(network(), 0.5, 0.5), len(images) - 1
    attack = made("ProjectedGradientDescent", surrogate, max_iter=3, batch_size=size)
    attack.generate(images.numpy(), y=labels.numpy())
    assert surrogate.draws == 2 * (3 + LOOKS)
    surrogate.restart(0)
    attack.generate(images.numpy())  # it asks for the labels, too
    assert surrogate.draws == 2 * (3 + LOOKS + 1)


def test_one_mask_for_a_step() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5, redraw="step")
    from art.estimators.classification import PyTorchClassifier

    class Stepping(PyTorchClassifier):
        def loss_gradient(self, *args: Any, **kwargs: Any) -> Any:
            surrogate.step()
            return super().loss_gradient(*args, **kwargs)

    seen = Stepping(
        surrogate, nn.CrossEntropyLoss(), (3, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
    )
    made("ProjectedGradientDescent", seen).generate(images.numpy(), y=labels.numpy())
    assert surrogate.draws == STEPS
