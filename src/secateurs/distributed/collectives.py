"""Communication between ranks over torch.distributed.

Everything is an all_reduce of a few kilobytes, so that timeouts and errors are handled once.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from secateurs._io.text import one_line, quoted
from secateurs._validation import make_generator
from secateurs.distributed.dtensor import is_dtensor
from secateurs.distributed.process_group import TIMEOUT, Array, LostRankError, ProcessGroup
from secateurs.errors import Argument, FailureError, InvalidArgumentError

_MOST_ARGUMENTS = 24
_MESSAGE_BYTES = 600
_NO_RANK = 1 << 31
_LONGEST_TIMEOUT = 1e6
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in the text of most functions and objects


class DistributedGroup(ProcessGroup):
    """The ranks of a process group of torch.distributed, to which this process belongs.

    Args:
        group: the process group.
        sharded: whether the model's parameters are divided over the ranks.
    """

    is_distributed = True

    def __init__(self, group: Any, *, sharded: bool):
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.is_sharded = sharded
        self._group = group
        self._first = dist.get_global_rank(group, 0)  # of the group, numbered as in the world
        types: list[torch.device] = group._device_types
        cpu = torch.device("cpu")
        self._device = cpu if cpu in types else torch.accelerator.current_accelerator()

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
        # The mesh may be one of several slices of a larger mesh, each with the same parameters:
        # only the slice with the group's first rank counts.
        if coordinates is None or self._first not in mesh.mesh:
            return False
        pairs = zip(dtensor.placements, coordinates, strict=True)
        return all(c == 0 for placement, c in pairs if placement.is_replicate())

    def sum(self, values: Array) -> Array:
        """See `ProcessGroup.sum`."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def agree(self, action: str, given: Mapping[str, object]) -> None:
        """See `ProcessGroup.agree`."""
        values = {"what is called": action} | {name: _shown(v) for name, v in given.items()}
        digests = np.zeros(_MOST_ARGUMENTS, np.int64)
        digests[: len(values)] = [digest(f"{name}={value}") for name, value in values.items()]
        # The largest of the digests and the largest of their negatives, which is -min.
        extremes = self._reduce(np.concatenate([digests, -digests]), dist.ReduceOp.MAX)
        differing = np.flatnonzero(extremes[:_MOST_ARGUMENTS] != -extremes[_MOST_ARGUMENTS:])
        if not len(differing):
            return
        names, index = list(values), int(differing[0])
        # If the calls differ, so may the names of their arguments: each rank sends its own.
        mine = f"{names[index]} is {values[names[index]]}" if index < len(names) else "nothing more"
        first = self._text_of(0, mine)
        leading = self.sum(digests[index : index + 1] * (self.rank == 0))
        other = self._lowest(bool(digests[index] != leading[0]))
        text = self._text_of(other, mine)
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
        if failing == _NO_RANK:
            return
        wrong = isinstance(error, InvalidArgumentError)
        text = self._text_of(failing, f"{int(wrong)}{error or ''}")
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
            raise  # the ranks cannot communicate any more
        except Exception as caught:
            error = caught
        self.fail(error)

    def generator(
        self,
        generator: torch.Generator | None,
        seed: int | None,
        needed_for: Argument | None,  # noqa: ARG002
    ) -> torch.Generator | None:
        """See `ProcessGroup.generator`."""
        return make_generator(generator, seed)

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
        else:  # this rank's generator had another state: advance it, so that it repeats nothing
            torch.empty(1, device=own.device).uniform_(generator=own)

    def _lowest(self, mine: bool) -> int:
        """The lowest rank on which ``mine`` is true; ``_NO_RANK`` if there is none."""
        values = np.array([self.rank if mine else _NO_RANK])
        return int(self._reduce(values, dist.ReduceOp.MIN)[0])

    def _text_of(self, rank: int, mine: str) -> str:
        """The text of one rank, on all ranks."""
        data = np.zeros(_MESSAGE_BYTES, np.uint8)
        if self.rank == rank:
            encoded = mine.encode()[:_MESSAGE_BYTES]
            data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
        data = self._reduce(data, dist.ReduceOp.SUM)
        return data.tobytes().rstrip(b"\0").decode(errors="replace")

    def _reduce(self, values: Array, operation: Any) -> Array:
        options: Any = dist.AllreduceOptions()
        options.reduceOp = operation
        seconds = _timeout()
        options.timeout = timedelta(seconds=seconds)
        tensor = torch.from_numpy(values.copy()).to(self._device)
        try:
            self._group.allreduce([tensor], options).wait()
            return tensor.cpu().numpy()
        except RuntimeError as error:
            raise LostRankError(
                f"rank {self.rank} of {self.size} waited for another rank in vain: one has ended, "
                f"or did not come within {seconds:g} s (SECATEURS_TIMEOUT sets this), or was "
                f"called with something else: {one_line(error)}"
            ) from error


def _timeout() -> float:
    """Seconds that a rank waits for the others.

    Raises:
        InvalidArgumentError: SECATEURS_TIMEOUT in the environment is no number of seconds.
    """
    text = os.environ.get("SECATEURS_TIMEOUT", str(TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise InvalidArgumentError(
            "SECATEURS_TIMEOUT in the environment must be a number of seconds above 0, at most a "
            f"million, got {quoted(text)}"
        )
    return seconds


def digest(text: str) -> int:
    """A hash of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def _shown(value: object) -> str:
    """A value as text that is the same in every process."""
    if isinstance(value, torch.Generator):
        return f"a generator on {value.device.type}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, set | frozenset):  # whose order differs between processes
        return f"{{{', '.join(sorted(map(_shown, value)))}}}"
    return _ADDRESS.sub("", str(getattr(value, "__qualname__", None) or repr(value)))
