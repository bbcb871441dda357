"""The gradient of an attack's loss with respect to the images alone."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from secateurs.attacks._noise import generator_at
from secateurs.attacks.adversary import check_logits
from secateurs.attacks.losses import LINEAR, LOSSES
from secateurs.attacks.method import Method
from secateurs.attacks.transforms import DIVERSITY, mixed, others, scaled
from secateurs.errors import FailureError
from secateurs.outputs import device_of, dtype_of, logits_of, moved
from secateurs.surrogates.wrappers import entering

DrawIndex = tuple[int, ...]
"""Step, pass, mixture and scale, on which random numbers depend."""


@dataclass
class Objective:
    """What an attack maximises: the loss of the mean of the members' logits.

    Attributes:
        members: networks from pixels to logits.
        classes: one for each image, on the device of the images.
        targeted: whether members should predict the classes, instead of any others.
        method: the loss, and the transforms of the members' inputs.
        passes: gradients to average.
        seed: seed of the random draws.
        chunk: images in one forward pass.
    """

    members: Sequence[nn.Module]
    classes: Tensor
    targeted: bool
    method: Method
    passes: int
    seed: int
    chunk: int
    _highest: int = field(init=False)
    _count: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._highest = int(self.classes.max())

    def gradient(self, points: Tensor, step: int) -> Tensor:
        """The sum of the gradients over passes, mixtures and scales, like ``points``.

        Random numbers depend on ``step``, which counts from 1.

        Raises:
            InvalidArgumentError: a member's logits do not match the classes or other members.
            FailureError: a member's logits do not depend on the images.
        """
        total = torch.zeros_like(points)
        for index in range(self.passes):
            for mixture, added in enumerate(self._added(points, step, index)):
                for scale in range(self.method.si):
                    draw = (step, index, mixture, scale)
                    self._add_gradient(total, points, added, draw)
        return total

    def _added(self, points: Tensor, step: int, index: int) -> Iterator[Tensor | None]:
        """For each mixture, the images to mix in; without Admix a single None."""
        if not self.method.admix:
            yield None
        for mixture in range(self.method.admix):
            other = others(len(points), generator_at(self.seed, step, index, mixture))
            yield points[other.to(points.device)]

    def _add_gradient(
        self, total: Tensor, points: Tensor, added: Tensor | None, draw: DrawIndex
    ) -> None:
        """Add the gradient of one forward pass of every member."""
        with ExitStack() as held:
            for start in range(0, len(points), self.chunk):
                if start:  # all parts of a batch keep the draw of the first part
                    held.enter_context(entering(self.members, "frozen"))
                rows = slice(start, start + self.chunk)
                more = None if added is None else added[rows]
                total[rows] += self._part(points[rows], more, self.classes[rows], draw)

    def _part(
        self, points: Tensor, added: Tensor | None, classes: Tensor, draw: DrawIndex
    ) -> Tensor:
        """The gradient of some of the images."""
        images = points.detach().requires_grad_()
        numbers = range(len(self.members))
        # A linear loss is a sum over the members: one member's graph at a time is enough.
        groups = [[n] for n in numbers] if self.method.loss in LINEAR else [list(numbers)]
        total = torch.zeros_like(points)
        for group in groups:
            seen = images if added is None else mixed(images, added)
            logits = self._logits(scaled(seen, draw[-1]), group, draw)
            values = LOSSES[self.method.loss](logits, classes)
            total += _input_gradient(values.sum() if self.targeted else -values.sum(), images)
        return total

    def _logits(self, seen: Tensor, group: Sequence[int], draw: DrawIndex) -> Tensor:
        """The sum of some members' logits, divided by the number of all members."""
        summands: list[Tensor] = []
        for number in group:
            member, inputs = self.members[number], seen
            if self.method.di is not None:
                generator = generator_at(self.seed, *draw, number)
                inputs = DIVERSITY[self.method.di](seen, generator)
            logits = logits_of(member(moved(inputs, device_of(member), dtype_of(member))))
            self._count = self._count or logits.shape[1]
            check_logits(logits, len(seen), self._highest, self._count)
            summands.append(logits.to(seen.device, torch.promote_types(seen.dtype, torch.float32)))
        return torch.stack(summands).sum(0) / len(self.members)


def _input_gradient(value: Tensor, images: Tensor) -> Tensor:
    """The gradient with respect to the images; the ``grad`` of parameters does not change."""
    found: list[Tensor | None] = [None]
    if value.requires_grad:
        found = list(torch.autograd.grad(value, images, allow_unused=True))
    if found[0] is None:
        raise FailureError(
            "a member's logits do not depend on the images in a way that can be differentiated: "
            "does its forward detach them, or run under no_grad?"
        )
    return found[0]
