"""The ranks of a process group that split the images of a sweep; each holds the whole model."""

import json
import os
import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from secateurs._io.json_objects import parse, plain
from secateurs._io.text import one_line
from secateurs.distributed.process_group import LostRankError
from secateurs.errors import FailureError, InvalidArgumentError, SecateursError
from secateurs.results.config import differences

_POLL_SECONDS = 0.005
_SOURCE_LINE = re.compile(r"^\[[^\]]*\] ")  # with which gloo's errors begin


class Ranks:
    """The ranks of a process group; a single process without one.

    All ranks call `gather`, `together`, `check_alike` and `check_output` in the same order. Ranks
    that wait for another notice when it ends; they wait for a slow one up to the timeout of the
    process group.

    Args:
        group: a ``torch.distributed.ProcessGroup``, or None.

    Attributes:
        group: the process group.
        rank: number of this process in it, from 0.
        size: how many there are.
    """

    def __init__(self, group: Any = None):
        self.group = group
        self.rank: int = 0 if group is None else group.rank()
        self.size: int = 1 if group is None else group.size()

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and prints for all."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Collect a value from each rank, on all ranks.

        Args:
            value: anything that JSON can hold.

        Returns:
            The values, ordered by rank.

        Raises:
            LostRankError: a rank has ended, or did not call within the group's timeout.
        """
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [int(each) for each in self._all_gather(torch.tensor([len(data)]))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        gathered = zip(self._all_gather(padded), lengths, strict=True)
        return [parse(each[:length].numpy().tobytes()) for each, length in gathered]

    @contextmanager
    def together(self) -> Generator[None]:
        """If the block raises on one rank, raise that on all ranks, with the number of the rank.

        Raises:
            InvalidArgumentError: an error of this kind in the block, on any rank.
            FailureError: another error in the block, on another rank.
            LostRankError: a rank has ended, or did not call within the group's timeout.
        """
        failure: Exception | None = None
        try:
            yield
        except LostRankError:
            raise
        except Exception as error:
            failure = error
        failures = self.gather(None if failure is None else _described(failure))
        if all(each == failures[0] for each in failures):  # also where none has failed
            if failure is not None:
                raise failure
            return
        if failure is not None and not isinstance(failure, SecateursError):
            raise failure
        failing = next(rank for rank, each in enumerate(failures) if each is not None)
        wrong, text = failures[failing]
        kind = InvalidArgumentError if wrong else FailureError
        raise kind(f"{text} (rank {failing})") from failure

    def check_alike(self, given: Mapping[str, Any]) -> None:
        """Check that all ranks were called with the same arguments.

        Raises:
            InvalidArgumentError: they differ; raised on all ranks.
        """
        gathered = self.gather(plain(dict(given)))
        for rank, others in enumerate(gathered):
            differing = differences(gathered[0], others)
            if differing:
                raise InvalidArgumentError(
                    f"the ranks were not called alike ({'; '.join(differing)}; there is rank 0, "
                    f"now is rank {rank}): call all with the same arguments"
                )

    def check_output(
        self, output: str | os.PathLike[str] | None, *, overwrite: bool = False
    ) -> str | None:
        """Check that no rank was given another output folder than rank 0, which writes.

        Returns:
            Rank 0's output folder; None if it has none.

        Raises:
            InvalidArgumentError: a rank was given another one; raised on all ranks.
        """
        name = None if output is None else os.fspath(output)
        gathered = self.gather([name, overwrite])
        first, first_overwrites = gathered[0]
        for rank, (other, other_overwrites) in enumerate(gathered):
            if other is not None and (other, other_overwrites) != (first, first_overwrites):
                raise InvalidArgumentError(
                    f"rank 0 writes the results, to {first!r} (overwrite={first_overwrites}), and "
                    f"rank {rank} was given {other!r} (overwrite={other_overwrites}): give all "
                    "ranks the same output"
                )
        return first

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on all ranks; the others pass a tensor of its shape and dtype."""
        if self.size == 1:
            return tensor
        tensor = tensor.to(self._device())
        self._wait_for(self.group.broadcast, tensor, 0)
        return tensor

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        tensor = tensor.to(self._device())
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        self._wait_for(self.group.allgather, [gathered], [tensor])
        return [each.cpu() for each in gathered]

    def _device(self) -> torch.device:
        """The device of the tensors that the group's backend can send."""
        cpu = torch.device("cpu")
        if cpu in self.group._device_types:
            return cpu
        return torch.accelerator.current_accelerator() or cpu

    def _wait_for(self, collective: Callable[..., Any], *arguments: Any) -> None:
        try:
            work = collective(*arguments)
            # Python handles signals between its own instructions, so not inside of wait().
            while not work.is_completed():
                time.sleep(_POLL_SECONDS)
            work.wait()
        except RuntimeError as error:
            reason = _SOURCE_LINE.sub("", one_line(error)).partition(". ")[0]
            raise LostRankError(
                f"rank {self.rank} of {self.size} has lost another rank, which has ended or did "
                f"not come within the timeout of the process group ({reason}); what has an output "
                "folder goes on where it was"
            ) from error


def _described(error: Exception) -> list[Any]:
    """Whether an argument was wrong, and the message."""
    if isinstance(error, SecateursError):
        return [isinstance(error, InvalidArgumentError), str(error)]
    return [False, f"{type(error).__name__}: {error}"]
