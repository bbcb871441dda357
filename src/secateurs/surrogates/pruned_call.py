"""Putting a draw on a model for the length of one call, without touching its weights.

In global pruning the modules find other tensors in the place of their parameters: the products of
weights and masks, which live as long as the graph of the call needs them. In gradient pruning the
functions that are handed a weight find its mask, and save it with the graph. Both hold for the
thread that calls, and for no other.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._tensors.multiply import Product, multiply
from secateurs.gradient_pruning.function_mode import without_our_mode
from secateurs.parameters.target import Target
from secateurs.surrogates.backward_pass import masked_backward
from secateurs.surrogates.numbered_draws import Draw
from secateurs.surrogates.stand_ins import standing_in
from secateurs.surrogates.structure import Structure
from secateurs.surrogates.torch_transforms import is_transformed, outside_transforms


class Turn:
    """One call of a surrogate: under one draw, which is made when it is first asked for.

    Args:
        structure: where the weights were at the time of the call.
        make: makes the draw.
    """

    def __init__(self, structure: Structure, make: Callable[[], Draw]):
        self.structure = structure
        self._make = make
        self._draw: Draw | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether the draw was made."""
        return self._draw is not None

    def draw(self) -> Draw:
        """The draw, the same each time."""
        if self._draw is None:
            self._draw = self._make()
        return self._draw


@contextmanager
def pruned_by(network: nn.Module, turn: Turn, prune_type: str) -> Generator[None]:
    """The model as a call's draw prunes it, for this thread; afterwards it is as it was.

    A draw that was not made yet is made when the first weight is used.

    Args:
        network: the model, unpruned.
        turn: whose draw.
        prune_type: ``"global"`` (forward and backward pass) or ``"gradient"`` (backward alone).
    """
    if prune_type == "gradient":
        # Before the function mode is entered, which would look at all that a draw does.
        found = _masked(turn) if turn.is_drawn else None
        with masked_backward(network, turn.structure) as learn:
            if found is not None:
                learn(*found)
                yield
                return

            def weights() -> Sequence[Tensor]:
                with without_our_mode():
                    found = _masked(turn)
                learn(*found)
                return found[0]

            with _when_used(turn.structure, weights):
                yield
    elif turn.is_drawn:
        with standing_in(turn.structure.places, products(turn.structure, turn.draw())):
            yield
    else:
        with _when_used(turn.structure, lambda: products(turn.structure, turn.draw())):
            yield


def _masked(turn: Turn) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return turn.structure.weights(), keeps(turn.structure.targets, turn.draw())


@contextmanager
def _when_used(structure: Structure, make: Callable[[], Sequence[Tensor]]) -> Generator[None]:
    """Let modules find what ``make`` gives, which is called when the first of them looks."""
    made: list[Tensor] = []
    with_gradients = torch.is_grad_enabled()

    def value(number: int) -> Tensor:
        if not made:
            with torch.set_grad_enabled(with_gradients):
                made.extend(make())
        return made[number]

    values = [partial(value, number) for number in range(len(structure.targets))]
    with standing_in(structure.places, values):
        yield


def products(structure: Structure, draw: Draw) -> list[Tensor]:
    """Each weight times its mask; gradients flow to weights that want them."""
    weights = structure.weights()
    keep = keeps(structure.targets, draw)
    with outside_transforms():
        plain = [i for i, weight in enumerate(weights) if not is_transformed(weight)]
        made: dict[int, Tensor] = _plain(structure.targets, weights, keep, plain, draw)
    for number, weight in enumerate(weights):
        if number not in made:  # of torch.func, which must see what is done with it
            mask = keep[number].to(weight.device)
            made[number] = torch.where(mask, weight, torch.zeros((), dtype=weight.dtype))
    return [made[number] for number in range(len(weights))]


def _plain(
    targets: Sequence[Target],
    weights: Sequence[Tensor],
    keep: Sequence[Tensor],
    chosen: Sequence[int],
    draw: Draw,
) -> dict[int, Tensor]:
    made = {i: torch.empty_like(weights[i], requires_grad=False) for i in chosen}
    with torch.no_grad():
        multiply([Product(weights[i].detach(), keep[i], made[i]) for i in chosen])
    wanted = [i for i in chosen if weights[i].requires_grad] if torch.is_grad_enabled() else []
    if wanted:
        # The masks are not kept for the backward pass: they are drawn again where it needs them.
        about, done = [targets[i] for i in wanted], [made[i] for i in wanted]
        linked = _Linked.apply(draw, about, done, *(weights[i] for i in wanted))
        made |= dict(zip(wanted, linked, strict=True))
    return made


def keeps(targets: Sequence[Target], draw: Draw) -> list[Tensor]:
    """The masks of a draw, one for each target, in shapes that broadcast against the weights."""
    with outside_transforms():
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
        keep = keeps(ctx.targets, ctx.draw)
        pairs = zip(grads, keep, strict=True)
        return None, None, None, *(None if g is None else g * k.to(g.device) for g, k in pairs)
