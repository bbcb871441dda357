"""The ranks that hold one model, and the few things that they say to each other.

Everything is an all_reduce of a few kilobytes, so there is one place for timeouts and errors.
"""

import hashlib
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from secateurs.distributed.dtensor import is_part, settle
from secateurs.errors import FailureError, InvalidArgumentError

Array = np.ndarray[Any, np.dtype[Any]]

TIMEOUT = 60.0
"""Seconds that a rank waits for the others; SECATEURS_TIMEOUT in the environment overrides it."""

_WIDTH = 24  # at most so many arguments are compared
_TEXT = 600  # bytes of a message
_NOBODY = 1 << 31


class LostRankError(FailureError):
    """Another rank died, did not come in time, or does something else."""


class Team:
    """The ranks of a process group, of which this process is one.

    Args:
        group: the process group.
        sharded: whether the model's parameters are divided among the ranks; else all hold all.
    """

    def __init__(self, group: Any, *, sharded: bool):
        self.rank: int = dist.get_rank(group)
        self.size: int = dist.get_world_size(group)
        self.sharded = sharded
        self._group = group
        self._first = dist.get_global_rank(group, 0)
        types: list[torch.device] = group._device_types
        here = torch.device("cpu")
        self._device = here if here in types else torch.accelerator.current_accelerator()

    def __deepcopy__(self, memo: object) -> "Team":
        return self

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether this rank counts a tensor's part: of several copies, one rank's does."""
        if not is_part(tensor):
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
        """Add up arrays of numbers over the ranks.

        Raises:
            LostRankError: a rank is missing.
        """
        return self._reduce(values, dist.ReduceOp.SUM)

    def agree(self, action: str, given: Mapping[str, object]) -> None:
        """Check that all ranks do the same with the same arguments.

        Raises:
            InvalidArgumentError: on all ranks, if not; it names what differs.
            LostRankError: a rank is missing.
        """
        said = {"what is called": action} | {name: _said(value) for name, value in given.items()}
        digests = np.zeros(_WIDTH, np.int64)
        digests[: len(said)] = [_digest(f"{name}={value}") for name, value in said.items()]
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

    def fail(self, error: Exception | None) -> None:
        """Raise on all ranks if one of them has an error; those that have none say whose it is.

        Raises:
            InvalidArgumentError: an error of this kind, on every rank.
            FailureError: another error, on another rank.
            LostRankError: a rank is missing.
        """
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
        """An error in the block on one rank is an error on all."""
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
        """A generator that gives all ranks the numbers that rank 0's own would give it.

        Args:
            generator: this rank's own; its state advances. None for a fresh one, seeded by rank 0.
        """
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


def team_of(model: nn.Module) -> Team | None:
    """The ranks that hold a model: None if this process has it for itself.

    Raises:
        InvalidArgumentError: the model is distributed in a way that cannot be pruned.
    """
    if not isinstance(model, nn.Module) or not dist.is_available() or not dist.is_initialized():
        return None
    settle(model)
    team = team_of_tensors(model.parameters())
    if team is not None:
        return team
    for module in model.modules():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            return Team(module.process_group, sharded=False)
        if type(module).__name__ == "FullyShardedDataParallel":
            raise InvalidArgumentError(
                "FullyShardedDataParallel hides its weights in flat buffers, so they cannot be "
                "pruned: write torch.distributed.fsdp.fully_shard(model) instead"
            )
    return None


def team_of_tensors(tensors: Iterable[torch.Tensor]) -> Team | None:
    """The ranks over which some tensors are divided: None if none of them is."""
    meshes: dict[Any, None] = {}
    for tensor in tensors:
        if is_part(tensor):
            dtensor: Any = tensor
            meshes[dtensor.device_mesh] = None
    if not meshes:
        return None
    roots = {_root(mesh): None for mesh in meshes}
    ranks = sorted({rank for root in roots for rank in root.mesh.flatten().tolist()})
    if ranks == list(range(dist.get_world_size())):
        return Team(dist.group.WORLD, sharded=True)
    widest = max(roots, key=lambda root: root.size())
    if sorted(widest.mesh.flatten().tolist()) != ranks or widest.ndim > 1:
        raise InvalidArgumentError(
            "the model lies on a part of the ranks that no process group of one dimension covers: "
            "build its meshes from one init_device_mesh over all ranks"
        )
    return Team(widest.get_group(), sharded=True)


def parameters_of(model: nn.Module) -> str:
    """What must be the same on all ranks: names, shapes, dtypes and placements of parameters."""
    named = list(model.named_parameters())
    text = ";".join(
        f"{n}:{tuple(p.shape)}:{p.dtype}:{getattr(p, 'placements', '')}" for n, p in named
    )
    elements = sum(p.numel() for _, p in named)
    return f"a model of {len(named)} parameters, {elements} elements ({_digest(text):x})"


def _root(mesh: Any) -> Any:
    find = getattr(mesh, "_get_root_mesh", None)
    return mesh if find is None else find()


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def _said(value: object) -> str:
    """A value in words that are the same in every process."""
    if isinstance(value, torch.Generator):
        return f"a generator on {value.device.type}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_said, value))}]"
    return str(getattr(value, "__qualname__", None) or repr(value))
