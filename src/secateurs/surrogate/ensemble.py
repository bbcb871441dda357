"""Several surrogates as one: the mean of their logits."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from secateurs.errors import InvalidArgumentError
from secateurs.outputs import logits_of
from secateurs.surrogate.diversified import Diversified


class Ensemble(nn.Module):
    r"""The mean of the logits of its members, :math:`f(x) = \frac1m \sum_i f_i(x)`.

    Members take the same input: put each one's own normalisation before it, as in
    ``nn.Sequential(normalisation, surrogate)``. What is said to the ensemble (`step`, `aim`,
    `dense`, `frozen`) is said to every surrogate in it.

    Args:
        members: modules from images to logits of the same classes.

    Raises:
        InvalidArgumentError: there is no member, or one of them is no module.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        if isinstance(members, nn.Module) or not members:
            raise InvalidArgumentError("an ensemble needs members: write Ensemble([first, second])")
        for member in members:
            if not isinstance(member, nn.Module):
                raise InvalidArgumentError(
                    f"members must be nn.Modules, got {type(member).__name__}"
                )
        self.members = nn.ModuleList(members)
        self.training = any(member.training for member in members)

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.members)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the members' logits.

        Args:
            x: (batch, ...).

        Returns:
            (batch, classes).

        Raises:
            InvalidArgumentError: members disagree on the number of classes.
        """
        found = [logits_of(member(x)) for member in self.members]
        classes = [logits.shape[1] for logits in found]
        if len(set(classes)) > 1:
            raise InvalidArgumentError(
                f"the members know different numbers of classes: {', '.join(map(str, classes))}"
            )
        return torch.stack(found).mean(0)

    def step(self) -> None:
        """Tell the members that one step of an attack is over; see `Diversified.step`."""
        for member in self._listening():
            member.step()

    def aim(self, classes: Tensor, targeted: bool = True) -> None:
        """Tell the members which classes an attack is about; see `Diversified.aim`."""
        for member in self._listening():
            member.aim(classes, targeted)

    def restart(self, seed: int) -> None:
        """Begin the members' draws anew: seed, seed + 1, ..."""
        for number, member in enumerate(self._listening()):
            member.restart(seed + number)

    @contextmanager
    def dense(self) -> Generator[Self]:
        """For the length of a ``with`` block, prune no member."""
        with ExitStack() as stack:
            for member in self._listening():
                stack.enter_context(member.dense())
            yield self

    @contextmanager
    def frozen(self) -> Generator[Self]:
        """For the length of a ``with`` block, keep every member's draw that stands."""
        with ExitStack() as stack:
            for member in self._listening():
                stack.enter_context(member.frozen())
            yield self

    def _listening(self) -> list[Diversified]:
        """The surrogates among the members, also inside of one, behind a normalisation."""
        return [module for module in self.modules() if isinstance(module, Diversified)]


def ensemble(
    members: Sequence[nn.Module],
    p_prune: float | None = None,
    p_bern: float | None = None,
    *,
    seed: int = 0,
    **options: Any,
) -> Ensemble:
    """Average the logits of several surrogates, each with draws of its own.

    Args:
        members: surrogates, taken as they are; or networks, which become `Diversified` with the
            arguments that follow.
        p_prune: as for `Diversified`; needed if one of the members is a network.
        p_bern: as for `Diversified`; needed if one of the members is a network.
        seed: member i draws with seed + i.
        **options: the other arguments of `Diversified`.

    Returns:
        The ensemble.

    Raises:
        InvalidArgumentError: as `Diversified`, there is no member, or a network comes without
            ``p_prune`` and ``p_bern``.

    Example:
        >>> import torch
        >>> surrogate = ensemble([torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)], 0.3, 0.5)
        >>> surrogate(torch.ones(2, 8)).shape, len(surrogate)
        (torch.Size([2, 4]), 2)
    """
    made: list[nn.Module] = []
    for number, member in enumerate(members):
        if isinstance(member, Diversified | Ensemble):
            made.append(member)
        elif p_prune is None or p_bern is None:
            raise InvalidArgumentError(
                f"member {number} ({type(member).__name__}) is no surrogate: give p_prune and "
                "p_bern, or wrap it with Diversified; for dense members use Ensemble"
            )
        else:
            made.append(Diversified(member, p_prune, p_bern, seed=seed + number, **options))
    return Ensemble(made)
