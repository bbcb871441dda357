"""The ranks that hold one model, and the few things that they say to each other.

Everything that adds up or compares over ranks goes through a `ProcessGroup`, which in a single
process does nothing, so that there is one path for both.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from secateurs.errors import FailureError

Array = np.ndarray[Any, np.dtype[Any]]

TIMEOUT = 60.0
"""Seconds that a rank waits for the others; SECATEURS_TIMEOUT in the environment overrides it."""


class LostRankError(FailureError):
    """Another rank died, did not come in time, or does something else."""


class ProcessGroup:
    """The ranks that hold one model, and what they say to each other.

    This class is a single process, which has the model for itself: nothing is said. All ranks of a
    `DistributedGroup` call the same methods in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: how many ranks there are.
        is_distributed: whether there is anyone to speak to.
        is_sharded: whether the model's parameters are divided among the ranks; else all hold all.
    """

    rank = 0
    size = 1
    is_distributed = False
    is_sharded = False

    @property
    def holders(self) -> "ProcessGroup":
        """Those that it takes to hold the model once: this process alone where each has it all."""
        return self

    def counts(self, tensor: torch.Tensor) -> bool:  # noqa: ARG002
        """Whether this rank counts what it has of a tensor; of ranks with the same, one does."""
        return True

    def sum(self, values: Array) -> Array:
        """Add up arrays of numbers over the ranks.

        Raises:
            LostRankError: a rank is missing.
        """
        return values

    def agree(self, action: str, given: Mapping[str, object]) -> None:
        """Check that all ranks do the same with the same arguments.

        Raises:
            InvalidArgumentError: on all ranks, if not; it names what differs.
            LostRankError: a rank is missing.
        """

    def check_replicas(self, what: str, value: Callable[[], int]) -> None:
        """Check that ranks of which each holds the whole model came to the same number.

        Args:
            what: what the number says, for the error.
            value: gives the number, if it is asked for.

        Raises:
            InvalidArgumentError: on all ranks, if they did not.
            LostRankError: a rank is missing.
        """

    def fail(self, error: Exception | None) -> None:
        """Raise on all ranks if one of them has an error; those that have none say whose it is.

        Raises:
            InvalidArgumentError: an error of this kind, on every rank.
            FailureError: another error, on another rank.
            LostRankError: a rank is missing.
        """
        if error is not None:
            raise error

    @contextmanager
    def together(self) -> Generator[None]:
        """An error in the block on one rank is an error on all."""
        yield

    @contextmanager
    def shared(self, generator: torch.Generator | None) -> Generator[torch.Generator | None]:
        """A generator that gives all ranks the numbers that rank 0's own would give it.

        Args:
            generator: this rank's own; its state advances. If None, one seeded by rank 0; in a
                single process there is none then.
        """
        yield generator
