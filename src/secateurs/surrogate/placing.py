"""Putting a draw on a model for the length of one call, without touching its weights.

In global mode the modules find other tensors in the place of their parameters: the products of
weights and masks, which live as long as the graph of the call needs them. In gradient mode the
masks of the backward pass are installed, and every operation saves its own with the graph.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.backward import install_gradient_masks, restore_gradients
from secateurs.multiply import Product, multiply
from secateurs.surrogate.draws import Draw
from secateurs.targets import Target


@contextmanager
def pruned_by(
    model: nn.Module, targets: Sequence[Target], draw: Draw, mode: str
) -> Generator[None]:
    """The model as this draw prunes it; afterwards it is as it was.

    Args:
        model: the network, unpruned.
        targets: the weights that the draw is about.
        draw: which of them are pruned.
        mode: ``"global"`` (forward and backward pass) or ``"gradient"`` (backward alone).
    """
    if mode == "gradient":
        masks = draw.masks().units
        install_gradient_masks(
            model, [(*place, masks[t.name].broadcastable) for t in targets for place in t.places]
        )
        try:
            yield
        finally:
            restore_gradients(model)
        return
    with in_place_of(targets, products(targets, draw)):
        yield


@contextmanager
def in_place_of(targets: Sequence[Target], values: Sequence[Tensor]) -> Generator[None]:
    """Let modules find these tensors where their parameters are."""
    before = [
        (module._parameters, attribute, module._parameters[attribute])
        for target in targets
        for module, attribute in target.places
    ]
    try:
        for target, value in zip(targets, values, strict=True):
            for module, attribute in target.places:
                entries: dict[str, Any] = module._parameters
                entries[attribute] = value
        yield
    finally:
        for parameters, attribute, parameter in before:
            parameters[attribute] = parameter


def weights_of(targets: Sequence[Target]) -> list[Tensor]:
    """The parameters that stand in the model now: ``.to()`` may have replaced those of before."""
    return [target.module.get_parameter(target.attribute) for target in targets]


def products(targets: Sequence[Target], draw: Draw) -> list[Tensor]:
    """Each weight times its mask; gradients flow to weights that want them."""
    weights, keep = weights_of(targets), _keep(targets, draw)
    made = [torch.empty_like(weight, requires_grad=False) for weight in weights]
    with torch.no_grad():
        multiply(
            [
                Product(weight.detach(), mask, value)
                for weight, mask, value in zip(weights, keep, made, strict=True)
            ]
        )
    if not torch.is_grad_enabled():
        return made
    wanted = [i for i, weight in enumerate(weights) if weight.requires_grad]
    if wanted:
        # The masks are not kept for the backward pass: they are drawn again where it needs them.
        chosen, done = [targets[i] for i in wanted], [made[i] for i in wanted]
        linked = _Linked.apply(draw, chosen, done, *(weights[i] for i in wanted))
        for i, value in zip(wanted, linked, strict=True):
            made[i] = value
    return made


def _keep(targets: Sequence[Target], draw: Draw) -> list[Tensor]:
    masks = draw.masks().units
    return [masks[target.name].broadcastable for target in targets]


class _Linked(torch.autograd.Function):
    """Products that exist already, as functions of the weights: dL/dw = keep * dL/d(keep * w)."""

    @staticmethod
    def forward(
        draw: Draw,  # noqa: ARG004
        targets: list[Target],  # noqa: ARG004
        made: list[Tensor],
        *weights: Tensor,  # noqa: ARG004
    ) -> tuple[Tensor, ...]:
        return tuple(value.detach() for value in made)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.draw, ctx.targets, *_ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        keep = _keep(ctx.targets, ctx.draw)
        pairs = zip(grads, keep, strict=True)
        return None, None, None, *(None if g is None else g * k.to(g.device) for g, k in pairs)
