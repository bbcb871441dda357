"""Networks, optimizers and a slow, obvious training that tests of training share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

import secateurs as sc


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5)
    )


def images() -> Tensor:
    return torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(images().to(next(model.parameters()).dtype)).float(), LABELS)


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    steps: int,
    after: Callable[[], object] = lambda: None,
) -> None:
    """A plain loop; every step has a closure, which optimizers but LBFGS call once."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        after()


@dataclass(frozen=True)
class Stepping:
    """An optimizer with its options."""

    name: str
    kind: type[optim.Optimizer]
    options: dict[str, Any] = field(default_factory=dict)

    def of(self, parameters: Any) -> optim.Optimizer:
        return self.kind(parameters, **self.options)


_SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
ALONE = [
    Stepping("sgd", optim.SGD, {"lr": 0.1}),
    Stepping("momentum", optim.SGD, _SGD),
    Stepping("dampened", optim.SGD, {**_SGD, "dampening": 0.5, "maximize": True, "lr": 0.01}),
    Stepping("nesterov", optim.SGD, {**_SGD, "nesterov": True}),
    Stepping("adam", optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    Stepping("amsgrad", optim.Adam, {"lr": 0.01, "amsgrad": True}),
    Stepping("adam-without-eps", optim.Adam, {"lr": 0.01, "eps": 0.0}),
    Stepping("adamw", optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    Stepping("adamw-overdone-decay", optim.AdamW, {"lr": 0.5, "weight_decay": 3.0}),
    Stepping("rmsprop", optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True}),
    Stepping("adagrad", optim.Adagrad, {"lr": 0.01, "initial_accumulator_value": 0.1}),
    Stepping("adadelta", optim.Adadelta),
    Stepping("adamax", optim.Adamax),
    Stepping("nadam", optim.NAdam),
    Stepping("radam", optim.RAdam),
    Stepping("rprop", optim.Rprop),
    Stepping("asgd", optim.ASGD, {"t0": 1}),
    *(
        Stepping(f"{kind.__name__.lower()}-{how}", kind, {**options, how: True})
        for kind, options in ((optim.SGD, _SGD), (optim.Adam, {"lr": 0.01}), (optim.AdamW, {}))
        for how in ("foreach", "fused")
    ),
]  # fmt: skip
"""Optimizers in which each element goes its own way."""

TOGETHER = [
    Stepping("lbfgs", optim.LBFGS, {"lr": 0.5, "max_iter": 4}),
    Stepping("lbfgs-wolfe", optim.LBFGS, {"max_iter": 4, "line_search_fn": "strong_wolfe"}),
    Stepping("adafactor", optim.Adafactor),
]


def states(optimizer: optim.Optimizer) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Everything that an optimizer keeps in the shape of a parameter."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and name != "step":
                yield name, parameter, value


def assert_held(model: nn.Module, optimizer: optim.Optimizer, masks: sc.Masks) -> None:
    """Every pruned weight is +0, and so is all that is kept of it; something else is not."""
    by_parameter = {id(model.get_parameter(name)): mask for name, mask in masks.items()}
    for name, mask in masks.items():
        weight = model.get_parameter(name).detach()
        assert_zeros(weight[~mask], name)
        assert weight[mask].all(), name
    for name, parameter, value in states(optimizer):
        if id(parameter) in by_parameter:
            assert_zeros(value[~by_parameter[id(parameter)]], name)


def assert_zeros(values: Tensor, name: str) -> None:
    assert not values.any(), f"{name} is not zero"
    assert not torch.signbit(values).any(), f"{name} is -0"


def pruned(model: nn.Module, ratio: float = 0.6, **options: Any) -> sc.Masks:
    """Prune a model, and return the masks."""
    masks = sc.select(model, ratio, **options).draw()
    sc.apply_masks(model, masks)
    return masks
