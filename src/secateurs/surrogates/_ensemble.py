"""Several surrogates as one: the mean of their logits."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from secateurs._validation import check_seed
from secateurs.errors import InvalidArgumentError
from secateurs.outputs import logits_of
from secateurs.surrogates.diversified import Diversified
from secateurs.surrogates.wrappers import call_each, entering, surrogates_in


class Ensemble(nn.Module):
    r"""The mean of the logits of its members, :math:`f(x) = \frac1m \sum_i f_i(x)`.

    Members take the same input: put each one's own normalisation before it, as in
    ``nn.Sequential(normalisation, surrogate)``. A call of `step`, `aim`, `dense` or `frozen` calls
    that method of every surrogate in it, at any depth: also of those that members hold in a list, a
    dictionary or a function rather than as a submodule. If a member has a method of that name
    itself, only that is called, and has to call those of the surrogates in the member.

    Args:
        members: modules from images to logits of the same classes.

    Raises:
        InvalidArgumentError: there is no member, or one that is no module.
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
        call_each(self.members, "step")

    def aim(self, classes: Tensor, targeted: bool = True) -> None:
        """Set the classes of an attack in all members; see `Diversified.aim`."""
        call_each(self.members, "aim", classes, targeted)

    def restart(self, seed: int) -> None:
        """Restart the draws of the surrogates, with seed, seed + 1, ..."""
        seed = check_seed("seed", seed)
        for number, member in enumerate(surrogates_in(self)):
            member.restart(seed + number)

    @contextmanager
    def dense(self) -> Generator[Self]:
        """For a ``with`` block, prune no member."""
        with entering(surrogates_in(self), "dense"):
            yield self

    @contextmanager
    def frozen(self) -> Generator[Self]:
        """For a ``with`` block, keep every member's current draw."""
        with entering(self.members, "frozen"):
            yield self


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
    seed = check_seed("seed", seed)
    if isinstance(members, nn.Module) and not isinstance(members, Ensemble | nn.ModuleList):
        raise InvalidArgumentError("members must be a sequence: for one network write [model]")
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
