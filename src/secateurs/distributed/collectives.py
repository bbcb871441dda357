"""What ranks say to each other over torch.distributed.

Everything is an all_reduce of a few kilobytes, so there is one place for timeouts and errors.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from secateurs.distributed.dtensor import is_dtensor
from secateurs.distributed.process_group import TIMEOUT, Array, LostRankError, ProcessGroup
from secateurs.errors import FailureError, InvalidArgumentError

_WIDTH = 24  # at most so many arguments are compared
_TEXT = 600  # bytes of a message
_NOBODY = 1 << 31


class DistributedGroup(ProcessGroup):
    """The ranks of a process group of torch.distributed, of which this process is one.

    Args:
        group: the process group.
        sharded: whether the model's parameters are divided among the ranks.
    """

    is_distributed = True

    def __init__(self, group: Any, *, sharded: bool):
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.is_sharded = sharded
        self._group = group
        self._first = dist.get_global_rank(group, 0)
        types: list[torch.device] = group._device_types
        here = torch.device("cpu")
        self._device = here if here in types else torch.accelerator.current_accelerator()

    def __deepcopy__(self, memo: object) -> "DistributedGroup":
        return self

    @property
    def holders(self) -> ProcessGroup:
        """See `ProcessGroup.holders`."""
        return self if self.is_sharded else ProcessGroup()

    def counts(self, tensor: torch.Tensor) -> bool:
        """See `ProcessGroup.counts`."""
        if not self.is_sharded:
            return True
        if not is_dtensor(tensor):
            return self.rank == 0
        dtensor: Any = tensor
        mesh = dtensor.device_mesh
        coordinates = mesh.get_coordinate()
        # A mesh may be one of several slices of a larger one, each with the same parameters.
        if coordinates is None or self._first not in mesh.mesh:
            return False
        pairs = zip(dtensor.placements, coordinates, strict=True)
        return all(c == 0 for placement, c in pairs if placement.is_replicate())

    def sum(self, values: Array) -> Array:
        """See `ProcessGroup.sum`."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def agree(self, action: str, given: Mapping[str, object]) -> None:
        """See `ProcessGroup.agree`."""
        said = {"what is called": action} | {name: _said(value) for name, value in given.items()}
        digests = np.zeros(_WIDTH, np.int64)
        digests[: len(said)] = [digest(f"{name}={value}") for name, value in said.items()]
        highest = self._reduce(np.concatenate([digests, -digests]), dist.ReduceOp.MAX)
        differing = np.flatnonzero(highest[:_WIDTH] != -highest[_WIDTH:])
        if not len(differing):
            return
        names, place = list(said), int(differing[0])
        # Where the calls differ, so may their arguments: names are those of the rank that speaks.
        mine = f"{names[place]} is {said[names[place]]}" if place < len(names) else "nothing more"
        first = self._text(mine, 0)
        leading = self.sum(digests[place : place + 1] * (self.rank == 0))
        other = self._lowest(bool(digests[place] != leading[0]))
        text = self._text(mine, other)
        raise InvalidArgumentError(
            f"the ranks were not called alike: on rank 0 {first}, on rank {other} {text}; "
            "call all ranks with the same arguments"
        )

    def check_replicas(self, what: str, value: Callable[[], int]) -> None:
        """See `ProcessGroup.check_replicas`."""
        if not self.is_sharded:
            self.agree("select", {what: value()})

    def fail(self, error: Exception | None) -> None:
        """See `ProcessGroup.fail`."""
        failing = self._lowest(error is not None)
        if failing == _NOBODY:
            return
        wrong = isinstance(error, InvalidArgumentError)
        text = self._text(f"{int(wrong)}{error or ''}", failing)
        if error is not None:
            raise error
        kind = InvalidArgumentError if text[:1] == "1" else FailureError
        raise kind(f"{text[1:]} (rank {failing})")

    @contextmanager
    def together(self) -> Generator[None]:
        """See `ProcessGroup.together`."""
        error: Exception | None = None
        try:
            yield
        except LostRankError:
            raise  # there is nobody to tell
        except Exception as caught:
            error = caught
        self.fail(error)

    @contextmanager
    def shared(self, generator: torch.Generator | None) -> Generator[torch.Generator]:
        """See `ProcessGroup.shared`."""
        own = generator
        if own is None:
            own = torch.Generator()
            own.seed()
        state = own.get_state().numpy()
        first = self._reduce(state if self.rank == 0 else np.zeros_like(state), dist.ReduceOp.SUM)
        same = torch.Generator(own.device)
        same.set_state(torch.from_numpy(first))
        yield same
        if np.array_equal(state, first):
            own.set_state(same.get_state())
        else:  # on with its own numbers, but not with those again
            torch.empty(1, device=own.device).uniform_(generator=own)

    def _lowest(self, mine: bool) -> int:
        """The lowest rank for which this is true."""
        values = np.array([self.rank if mine else _NOBODY])
        return int(self._reduce(values, dist.ReduceOp.MIN)[0])

    def _text(self, text: str, speaker: int) -> str:
        """What one rank says."""
        data = np.zeros(_TEXT, np.uint8)
        if self.rank == speaker:
            said = text.encode()[:_TEXT]
            data[: len(said)] = np.frombuffer(said, np.uint8)
        data = self._reduce(data, dist.ReduceOp.SUM)
        return data.tobytes().rstrip(b"\0").decode(errors="replace")

    def _reduce(self, values: Array, operation: Any) -> Array:
        options: Any = dist.AllreduceOptions()
        options.reduceOp = operation
        seconds = float(os.environ.get("SECATEURS_TIMEOUT", TIMEOUT))
        options.timeout = timedelta(seconds=seconds)
        tensor = torch.from_numpy(values.copy()).to(self._device)
        try:
            self._group.allreduce([tensor], options).wait()
            return tensor.cpu().numpy()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise LostRankError(
                f"rank {self.rank} of {self.size} waited for another rank in vain: one has ended, "
                f"or did not come within {seconds:g} s (SECATEURS_TIMEOUT sets this), or was "
                f"called with something else: {reason}"
            ) from error


def digest(text: str) -> int:
    """A number that hardly two texts have in common, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def _said(value: object) -> str:
    """A value in words that are the same in every process."""
    if isinstance(value, torch.Generator):
        return f"a generator on {value.device.type}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_said, value))}]"
    return str(getattr(value, "__qualname__", None) or repr(value))
