"""Outputs that are used again are those of the whole network, bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.evaluation.forward import Forward
from secateurs.evaluation.reusing_forward import ReusingForward, forward_of

CPU = torch.device("cpu")


class Block(nn.Module):
    """A residual block that overwrites what its modules return."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.short = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.act(self.norm(self.first(x))))
        out += self.short(x)
        return self.act(out)


def residual() -> nn.Module:
    stages = nn.Sequential(
        nn.Sequential(Block(), Block()),
        nn.ReLU(inplace=True),
        nn.Sequential(Block(), nn.Identity()),
    )
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(inplace=True), stages, nn.Flatten(), nn.Linear(6 * 36, 5)
    )


class Odd(nn.Module):
    """Uses one layer twice, another's weight before that layer, and some by functions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.twice = nn.Linear(64, 64), nn.Linear(64, 64)
        self.pair, self.alone = Pair(), nn.Linear(64, 64)
        self.last = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(x.flatten(1)).relu()
        x = x + F.linear(x, self.head.weight)
        one, two = self.pair(x)
        x = self.twice(one).relu_() + self.head(two)
        return self.last(F.linear(x, weight=self.alone.weight))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


class Moody(nn.Module):
    """Calls its modules in an order that depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)
        self.last = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        several = (self.one, self.two) if x.sum() > 0 else (self.two, self.one)
        for layer in several:
            x = layer(x).relu()
        return self.last(x)


class Attentive(nn.Module):
    """torch's own encoder, which has a fast path of its own."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.last = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(x.flatten(1, 2)).flatten(1))


@pytest.mark.parametrize("make", [residual, Odd, Moody, Attentive])
@pytest.mark.parametrize("backwards", [False, True])
def test_each_network_gives_what_it_gives_as_a_whole(
    make: Callable[[], nn.Module], backwards: bool
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    changed: list[Tensor | None] = [None]
    reusing = ReusingForward(model, CPU, False, print, lambda: changed[0])
    whole = Forward(model, CPU, False, print)
    reusing.largest = whole.largest = 3  # so that a batch has several parts
    weights = [p for p in model.parameters() if p.dim() > 1]
    for sign in (1, -1):
        images = torch.randn(5, 1, 8, 8) + 0.1 * sign
        images *= sign * images.sum().sign()
        changed[0] = None
        assert torch.equal(reusing(images), whole(images))
        for weight in weights[:: -1 if backwards else 1]:
            changed[0], dense = weight, weight.detach().clone()
            for ratio in (0.5, 0.9):
                with torch.no_grad():
                    weight.copy_(dense * (torch.rand_like(dense) > ratio))
                assert torch.equal(reusing(images), whole(images))
            with torch.no_grad():
                weight.copy_(dense)
    assert all("forward" not in vars(module) for module in model.modules())


def test_modules_before_the_layer_run_once_a_batch() -> None:
    ran: dict[str, int] = {}

    def count(name: str) -> Any:
        def forward(x: Tensor) -> Tensor:
            ran[name] = ran.get(name, 0) + 1
            return nn.Conv2d.forward(layers[name], x)

        return forward

    model = residual().eval()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for name, layer in layers.items():
        vars(layer)["forward"] = count(name)
    changed: list[Tensor | None] = [None]
    run = ReusingForward(model, CPU, False, print, lambda: changed[0])
    run(torch.randn(2, 1, 8, 8))
    changed[0] = layers["2.0.1.second"].weight
    run(torch.randn(2, 1, 8, 8))  # the lesson, and the first that keeps something
    ran.clear()
    for _ in range(4):
        run(torch.randn(2, 1, 8, 8))
    assert "0" not in ran and "2.0.0.first" not in ran and ran["2.0.1.second"] == 4
    assert ran["2.2.0.first"] == 4


def test_a_compiled_model_runs_as_a_whole() -> None:
    model = residual()
    assert isinstance(forward_of(model, CPU, False, lambda: None)(print), ReusingForward)
    model[2]._compiled_call_impl = model[2]._call_impl  # as nn.Module.compile leaves it
    assert type(forward_of(model, CPU, False, lambda: None)(print)) is Forward
