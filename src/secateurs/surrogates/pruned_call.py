"""Pruning a model by a draw for the length of one call, without a change of its weights.

In global pruning the modules find other tensors instead of their parameters: the products of
weights and masks, which are freed with the graph of the call. In gradient pruning the functions
that use a weight find its mask, and save it in the graph. Other threads see neither.
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
from secateurs.surrogates.draw_sequence import Draw
from secateurs.surrogates.network_snapshot import NetworkSnapshot
from secateurs.surrogates.thread_parameters import replaced_in_thread
from secateurs.surrogates.torch_transforms import is_transformed, outside_transforms


class LazyDraw:
    """The draw of one call of a surrogate, made when it is first needed."""

    def __init__(self, snapshot: NetworkSnapshot, make: Callable[[], Draw]):
        self.snapshot = snapshot
        self._make = make
        self._draw: Draw | None = None

    @property
    def is_made(self) -> bool:
        """Whether the draw was made."""
        return self._draw is not None

    def make(self) -> Draw:
        """The draw, the same each time."""
        if self._draw is None:
            self._draw = self._make()
        return self._draw


@contextmanager
def pruned_by(network: nn.Module, lazy: LazyDraw, prune_type: str) -> Generator[None]:
    """For a ``with`` block, prune the model by the draw of a call, for this thread alone.

    A draw that was not made yet is made when the first weight is used.
    """
    if prune_type == "gradient":
        # Outside of the function mode, which would otherwise see all operations of a draw.
        found = _weights_and_masks(lazy) if lazy.is_made else None
        with masked_backward(network, lazy.snapshot) as add_weights:
            if found is not None:
                add_weights(*found)
                yield
                return

            def weights() -> Sequence[Tensor]:
                with without_our_mode():
                    found = _weights_and_masks(lazy)
                add_weights(*found)
                return found[0]

            with _when_used(lazy.snapshot, weights):
                yield
    elif lazy.is_made:
        with replaced_in_thread(lazy.snapshot.holders, products(lazy.snapshot, lazy.make())):
            yield
    else:
        with _when_used(lazy.snapshot, lambda: products(lazy.snapshot, lazy.make())):
            yield


def _weights_and_masks(lazy: LazyDraw) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return lazy.snapshot.weights(), keeps(lazy.snapshot.targets, lazy.make())


@contextmanager
def _when_used(snapshot: NetworkSnapshot, make: Callable[[], Sequence[Tensor]]) -> Generator[None]:
    """Let modules find the tensors of ``make``, which is called at the first look-up."""
    made: list[Tensor] = []
    with_gradients = torch.is_grad_enabled()

    def value(number: int) -> Tensor:
        if not made:
            with torch.set_grad_enabled(with_gradients):
                made.extend(make())
        return made[number]

    values = [partial(value, number) for number in range(len(snapshot.targets))]
    with replaced_in_thread(snapshot.holders, values):
        yield


def products(snapshot: NetworkSnapshot, draw: Draw) -> list[Tensor]:
    """Each weight times its mask; gradients flow to weights that require them."""
    weights = snapshot.weights()
    keep = keeps(snapshot.targets, draw)
    with outside_transforms():
        plain = [i for i, weight in enumerate(weights) if not is_transformed(weight)]
        made: dict[int, Tensor] = _plain(snapshot.targets, weights, keep, plain, draw)
    for number, weight in enumerate(weights):
        if number not in made:  # of a transform of torch.func, which must see the operations
            mask = keep[number].to(weight.device)
            made[number] = torch.where(mask, weight, weight.new_zeros(()))
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
    learned = [i for i in chosen if weights[i].requires_grad] if torch.is_grad_enabled() else []
    if learned:
        # The masks are not kept for the backward pass, which draws them again if it needs them.
        of, values = [targets[i] for i in learned], [made[i] for i in learned]
        linked = _Linked.apply(draw, of, values, *(weights[i] for i in learned))
        made |= dict(zip(learned, linked, strict=True))
    return made


def keeps(targets: Sequence[Target], draw: Draw) -> list[Tensor]:
    """The masks of a draw, one for each target, in shapes that broadcast against the weights."""
    with outside_transforms():
        masks = draw.masks().units
    return [masks[target.name].broadcastable for target in targets]


class _Linked(torch.autograd.Function):
    """Links computed products to their weights: dL/dw = keep * dL/d(keep * w)."""

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
