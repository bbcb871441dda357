"""Surrogates in the real foolbox, behind its PyTorchModel."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from integration_cases import (
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

fb = pytest.importorskip("foolbox")

EPSILONS = [EPS / 4, EPS]
ATTACKS: dict[str, Callable[[], Any]] = {
    "LinfPGD": lambda: fb.attacks.LinfPGD(steps=STEPS, rel_stepsize=0.25, random_start=False),
    "random-start": lambda: fb.attacks.LinfPGD(steps=STEPS, rel_stepsize=0.25),
    "MI-FGSM": lambda: fb.attacks.MIFGSM(steps=STEPS, rel_stepsize=0.25),
}
# Ten steps and a look at the success, for each epsilon.
FORWARDS = len(EPSILONS) * (STEPS + 1)


def criterion(targeted: bool) -> Any:
    _, labels, targets = batch()
    return fb.criteria.TargetedMisclassification(targets) if targeted else labels


def of(name: str) -> Callable[[nn.Module, bool], Tensor]:
    images, _, _ = batch()

    def attack(model: nn.Module, targeted: bool) -> Tensor:
        seen = fb.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
        _, clipped, _ = ATTACKS[name]()(seen, images, criterion(targeted), epsilons=EPSILONS)
        small, large = clipped
        assert (small - images).abs().max() <= EPSILONS[0] + 1e-6
        return large

    return attack


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack(name: str) -> None:
    check("forward", of(name), forwards=FORWARDS)


@every_surrogate
def test_every_surrogate(kind: str) -> None:
    check(kind, of("MI-FGSM"), forwards=FORWARDS)


def test_no_candidates_no_difference() -> None:
    check_nothing_pruned(of("LinfPGD"))


def test_one_epsilon_as_a_number() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5)
    seen = fb.PyTorchModel(surrogate, bounds=(0, 1), device="cpu")
    ATTACKS["LinfPGD"]()(seen, images, labels, epsilons=EPS)
    assert surrogate.draws == STEPS + 1


def test_its_preprocessing() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(bare(), 0.5, 0.5)
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "axis": -3}
    seen = fb.PyTorchModel(surrogate, (0, 1), device="cpu", preprocessing=preprocessing)
    _, found, _ = ATTACKS["MI-FGSM"]()(seen, images, labels, epsilons=EPSILONS)
    expected = of("MI-FGSM")(sc.Diversified(network(), 0.5, 0.5), False)
    assert torch.equal(found[-1], expected)
    assert surrogate.draws == FORWARDS


def test_the_success_it_reports_is_that_of_the_last_draw() -> None:
    # So few pixels change that the dense network stays right, and so many weights are pruned that
    # each draw is wrong about other images, whatever weights the training ended with.
    images, labels, _ = batch(every=15)
    surrogate = sc.Diversified(network(), 1.0, 0.3)
    recorder = Recorder(surrogate)
    seen = fb.PyTorchModel(surrogate, bounds=(0, 1), device="cpu")
    _, found, success = ATTACKS["LinfPGD"]()(seen, images, labels, epsilons=0.02)
    *earlier, last = (
        sc.apply_masks(network(), masks)(found).argmax(1) != labels for masks in recorder.masks[0]
    )
    assert len(earlier) == STEPS
    assert torch.equal(success, last)
    assert not any(torch.equal(success, other) for other in earlier)
    with surrogate.dense():
        assert not torch.equal(success, seen(found).argmax(1) != labels)


def test_one_mask_for_a_step() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5, redraw="step")

    class Stepping(fb.attacks.LinfPGD):
        def value_and_grad(self, loss_fn: Any, x: Any) -> Any:
            surrogate.step()
            return super().value_and_grad(loss_fn, x)

    seen = fb.PyTorchModel(surrogate, bounds=(0, 1), device="cpu")
    Stepping(steps=STEPS)(seen, images, labels, epsilons=EPSILONS)
    assert surrogate.draws == 2 * STEPS
