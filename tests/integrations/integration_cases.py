"""A trained network to attack, surrogates of it, and the masks of an attack played again."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from helpers import assert_same, snapshot
from secateurs.masks.mask import Masks
from secateurs.surrogates import mup, rapa
from secateurs.zoo import load_data, load_model

EPS, ALPHA, STEPS = 0.4, 0.1, 10
K = 4


class Normalise(nn.Module):
    """Pixels from 0 to 1, as the digits network wants them."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5) / 0.5


@functools.cache
def _trained() -> nn.Module:
    return load_model("digits").model


def bare(channels: int = 3) -> nn.Sequential:
    """The trained digits network; with three channels it sees their mean."""
    network: Any = copy.deepcopy(_trained())
    if channels != 1:
        first = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        weight = network.conv1.weight.detach()
        first.weight = nn.Parameter(weight.repeat(1, channels, 1, 1) / channels)
        network.conv1 = first
    return network.eval()


def network(channels: int = 3) -> nn.Sequential:
    """The same from pixels: its root is a Sequential."""
    return nn.Sequential(Normalise(), bare(channels)).eval()


@functools.cache
def _digits(every: int) -> tuple[Tensor, Tensor]:
    model = load_model("digits")
    dataset = load_data("digits", model=model).dataset
    pairs = [dataset[index] for index in range(0, len(dataset), every)]
    images = torch.stack([image for image, _ in pairs])
    labels = torch.tensor([label for _, label in pairs])
    right = model.model(images).argmax(1) == labels
    return (images * 0.5 + 0.5)[right], labels[right]


def batch(channels: int = 3, every: int = 90) -> tuple[Tensor, Tensor, Tensor]:
    """Some images that the network knows, from 0 to 1, their labels, and targets."""
    images, labels = _digits(every)
    return images.repeat(1, channels, 1, 1), labels, (labels + 3) % 10


def _ensemble(model: nn.Module) -> sc.Ensemble:
    return sc.ensemble([model, copy.deepcopy(model)], 0.5, 0.5)


SURROGATES: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda model: sc.Diversified(model, 0.5, 0.5),
    "step": lambda model: sc.Diversified(model, 0.5, 0.5, redraw="step"),
    "in-turn": lambda model: sc.Diversified(model, 0.5, 0.5, redraw=K),
    "gradient": lambda model: sc.Diversified(model, 0.8, 0.5, prune_type="gradient"),
    "mup": lambda model: mup(model, 0.3),
    "rapa": lambda model: rapa(model, 0.05),
    "ensemble": _ensemble,
}
every_surrogate = pytest.mark.parametrize("kind", SURROGATES)


def members(surrogate: Any) -> list[sc.Diversified]:
    return list(surrogate) if isinstance(surrogate, sc.Ensemble) else [surrogate]


def draws(surrogate: Any) -> int:
    """How many draws each member has begun: all the same."""
    (found,) = {member.draws for member in members(surrogate)}
    return found


def draws_in(kind: str, forwards: int) -> int:
    """How many draws so many forward passes begin."""
    return 1 if kind == "step" else forwards


class Replay(nn.Module):
    """Its call number i is that of a copy of the network under the i-th masks."""

    def __init__(self, member: sc.Diversified, masks: list[Masks]):
        super().__init__()
        self.network, self.prune_type, self.left = member.network, member.prune_type, list(masks)

    def forward(self, x: Tensor) -> Tensor:
        masks = self.left.pop(0)
        return sc.apply_masks(copy.deepcopy(self.network), masks, self.prune_type)(x)


class Recorder:
    """Keeps the masks of every call of a surrogate from now on."""

    def __init__(self, surrogate: Any):
        self.surrogate = surrogate
        self.masks: list[list[Masks]] = [[] for _ in members(surrogate)]
        for member, kept in zip(members(surrogate), self.masks, strict=True):

            def keep(module: Any, *_: Any, kept: list[Masks] = kept) -> None:
                kept.append(module.masks)

            member.register_forward_hook(keep)

    @property
    def forwards(self) -> int:
        (found,) = {len(kept) for kept in self.masks}
        return found

    def replay(self) -> nn.Module:
        """The same masks in the same turn, by copies that are pruned for good."""
        pairs = zip(members(self.surrogate), self.masks, strict=True)
        replays = [Replay(member, kept) for member, kept in pairs]
        if isinstance(self.surrogate, sc.Ensemble):
            return sc.Ensemble(replays).eval()
        return replays[0].eval()


def check(
    kind: str,
    attack: Callable[[nn.Module, bool], Tensor],
    *,
    forwards: int | tuple[int, int],
    success: float = 0.9,
    channels: int = 3,
) -> None:
    """What must hold of an attack of another package on a surrogate.

    Args:
        kind: of the surrogate.
        attack: from a module and whether the attack is targeted to images; `batch` is attacked.
        forwards: how many forward passes it makes; two numbers if a targeted one makes others.
        success: the part of the images that must fool the dense network, at least.
        channels: of the network and the images.
    """
    images, labels, targets = batch(channels)
    model = network(channels)
    weights, modes = snapshot(model), [m.training for m in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    counts = forwards if isinstance(forwards, tuple) else (forwards, forwards)
    for targeted in (False, True):
        surrogate = SURROGATES[kind](model)
        if kind in ("mup", "ensemble"):
            surrogate.aim(targets if targeted else labels, targeted)
        recorder = Recorder(surrogate)
        found = _seeded(attack, surrogate, targeted)

        assert recorder.forwards == counts[targeted]
        assert draws(surrogate) == draws_in(kind, counts[targeted])
        assert found.shape == images.shape
        assert (found - images).abs().max() <= EPS + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(found, _seeded(attack, recorder.replay(), targeted))

        dense = _seeded(attack, network(channels), targeted)
        assert not torch.equal(found, dense)
        begun = draws(surrogate)
        with surrogate.dense():
            assert torch.equal(_seeded(attack, surrogate, targeted), dense)
            answers = surrogate(found).argmax(1)
        assert draws(surrogate) == begun
        assert torch.equal(answers, model(found).argmax(1))
        fooled = answers == targets if targeted else answers != labels
        assert fooled.double().mean() >= success, fooled.double().mean()

    assert_same(snapshot(model), weights)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(parameter.is_leaf for parameter in model.parameters())


def check_nothing_pruned(attack: Callable[[nn.Module, bool], Tensor]) -> None:
    """Without candidates a surrogate is its network, bit for bit, for either kind of mask."""
    expected = _seeded(attack, network(), True)
    for prune_type in ("global", "gradient"):
        surrogate = sc.Diversified(network(), 0.0, 1.0, prune_type=prune_type)
        assert torch.equal(_seeded(attack, surrogate, True), expected)
        assert surrogate.draws > 0


def _seeded(attack: Callable[[nn.Module, bool], Tensor], model: Any, targeted: bool) -> Tensor:
    torch.manual_seed(5)
    np.random.seed(5)  # of the packages that draw there
    return attack(model, targeted)
