"""The ranks that hold one model, and how they communicate.

All sums and comparisons over ranks go through a `ProcessGroup`. In a single process it does
nothing, so that the same code serves both cases.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from secateurs._validation import make_generator
from secateurs.errors import Argument, FailureError

Array = np.ndarray[Any, np.dtype[Any]]

TIMEOUT = 60.0
"""Seconds that a rank waits for the others; SECATEURS_TIMEOUT in the environment overrides it."""


class LostRankError(FailureError):
    """Another rank ended, did not answer in time, or called something else."""


class ProcessGroup:
    """The ranks that hold one model, and how they communicate.

    This class is a single process that holds the whole model, so that nothing is communicated. The
    ranks of a `DistributedGroup` must all call the same methods in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: how many ranks there are.
        is_distributed: whether there may be other ranks.
        is_sharded: whether the model's parameters are divided over the ranks; otherwise each rank
            holds the whole model.
    """

    rank = 0
    size = 1
    is_distributed = False
    is_sharded = False

    @property
    def holders(self) -> "ProcessGroup":
        """The ranks that hold one copy of the model: this process alone if it holds all of it."""
        return self

    def counts(self, tensor: torch.Tensor) -> bool:  # noqa: ARG002
        """Whether this rank counts its part of a tensor: of several ranks with a copy, one does."""
        return True

    def sum(self, values: Array) -> Array:
        """Add up arrays of numbers over the ranks.

        Raises:
            LostRankError: a rank is missing.
        """
        return values

    def agree(self, action: str, given: Mapping[str, object]) -> None:
        """Check that all ranks perform the same action with the same arguments.

        Raises:
            InvalidArgumentError: on all ranks, if not; it names what differs.
            LostRankError: a rank is missing.
        """

    def check_replicas(self, what: str, value: Callable[[], int]) -> None:
        """Check that all ranks computed the same number, if each holds the whole model.

        Args:
            what: what the number is, for the error.
            value: computes the number; not called in a single process or on sharded models.

        Raises:
            InvalidArgumentError: on all ranks, if the numbers differ.
            LostRankError: a rank is missing.
        """

    def fail(self, error: Exception | None) -> None:
        """Raise on all ranks if one of them has an error; the message then names that rank.

        Raises:
            InvalidArgumentError: an error of this kind, on every rank.
            FailureError: another error, on another rank.
            LostRankError: a rank is missing.
        """
        if error is not None:
            raise error

    @contextmanager
    def together(self) -> Generator[None]:
        """Raise an error in the ``with`` block on all ranks if it occurs on one."""
        yield

    def generator(
        self,
        generator: torch.Generator | None,
        seed: int | None,
        needed_for: Argument | None,
    ) -> torch.Generator | None:
        """`make_generator`; ranks that were given neither get one from rank 0, see `shared`."""
        return make_generator(generator, seed, needed_for=needed_for)

    @contextmanager
    def shared(self, generator: torch.Generator | None) -> Generator[torch.Generator | None]:
        """Give all ranks a generator that draws the same numbers: those of rank 0's generator.

        Args:
            generator: this rank's own generator, whose state advances. If None, rank 0 seeds one;
                in a single process, None is given back.
        """
        yield generator
