"""Surrogates in the real TransferAttack, by its `load_model`.

It is published as a repository, not as a package: these tests run where a checkout of it is on
PYTHONPATH.
"""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from integration_cases import (
    ALPHA,
    EPS,
    STEPS,
    SURROGATES,
    Replay,
    batch,
    check,
    check_nothing_pruned,
    every_surrogate,
    network,
)
from torch import Tensor, nn

import secateurs as sc

pytest.importorskip("transferattack", reason="no checkout of TransferAttack is on PYTHONPATH")

# How many forward passes each makes in ten steps; the copies of SIM are one batch.
# DIM would not make images of 8 x 8 larger by default.
ATTACKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "MIFGSM": ("gradient.mifgsm", {}, 10),
    "DIM": ("input_transformation.dim", {"resize_rate": 1.5}, 10),
    "SIM": ("input_transformation.sim", {}, 10),
    "VMIFGSM": ("gradient.vmifgsm", {"num_neighbor": 2}, 30),
}


def kind_of(name: str) -> Any:
    return getattr(importlib.import_module(f"transferattack.{ATTACKS[name][0]}"), name)


def made(name: str, model: nn.Module, targeted: bool) -> Any:
    class Own(kind_of(name)):  # type: ignore[misc]
        def load_model(self, model_name: str) -> nn.Module:
            return model.eval()

    options = {"epsilon": EPS, "alpha": ALPHA, "epoch": STEPS, "targeted": targeted}
    return Own("own", **options, **ATTACKS[name][1])


def of(name: str) -> Callable[[nn.Module, bool], Tensor]:
    images, labels, targets = batch()

    def attack(model: nn.Module, targeted: bool) -> Tensor:
        given = torch.stack([labels, targets]) if targeted else labels
        return images + made(name, model, targeted)(images, given)

    return attack


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack(name: str) -> None:
    check("forward", of(name), forwards=ATTACKS[name][2])


@every_surrogate
def test_every_surrogate(kind: str) -> None:
    check(kind, of("MIFGSM"), forwards=10)


def test_no_candidates_no_difference() -> None:
    check_nothing_pruned(of("DIM"))


def test_its_own_ensemble() -> None:
    from transferattack.utils import EnsembleModel

    images, _, _ = batch()
    members = [sc.Diversified(network(), 0.5, 0.5, seed=seed).train(mode=False) for seed in (0, 1)]
    masks: list[list[Any]] = [[], []]
    for member, kept in zip(members, masks, strict=True):
        member.register_forward_hook(lambda module, *_, kept=kept: kept.append(module.masks))
    # Its members lie in a list, so that it has no parameters.
    both = EnsembleModel(members)
    assert not list(both.parameters())
    found = of("MIFGSM")(both, False)
    assert [member.draws for member in members] == [10, 10]
    replays = [Replay(m, kept).eval() for m, kept in zip(members, masks, strict=True)]
    assert torch.equal(found, of("MIFGSM")(EnsembleModel(replays), False))
    assert (found - images).abs().max() <= EPS + 1e-6


def test_our_ensemble_gives_what_its_ensemble_gives() -> None:
    from transferattack.utils import EnsembleModel

    theirs = EnsembleModel(list(SURROGATES["ensemble"](network())))
    ours = SURROGATES["ensemble"](network())
    assert torch.equal(of("MIFGSM")(ours, True), of("MIFGSM")(theirs, True))


def test_its_normalisation_is_that_of_the_network() -> None:
    from transferattack.utils import wrap_model

    model: Any = copy.deepcopy(network())
    model.default_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    preprocessing, seen = wrap_model(sc.Diversified(model, 0.5, 0.5))
    assert "mean=(0.1, 0.2, 0.3)" in str(preprocessing)
    assert isinstance(seen, sc.Diversified)


def test_one_mask_for_a_step() -> None:
    images, labels, _ = batch()
    surrogate = sc.Diversified(network(), 0.5, 0.5, redraw="step")

    class Stepping(kind_of("VMIFGSM")):  # type: ignore[misc]
        def load_model(self, model_name: str) -> nn.Module:
            return surrogate.eval()

        def update_delta(self, *args: Any, **kwargs: Any) -> Any:
            surrogate.step()
            return super().update_delta(*args, **kwargs)

    Stepping("own", epsilon=EPS, epoch=STEPS, num_neighbor=2)(images, labels)
    assert surrogate.draws == STEPS
