"""One command in several processes: who prints, who loads first, where each runs."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import nn

from secateurs.cli.interruption import AGAIN_SECONDS, would_be_lost
from secateurs.distributed.process_group import TIMEOUT
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation import Ranks

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HEARING_SECONDS = 15.0


def on_ranks(run: Callable[[Ranks], tuple[int, str]]) -> tuple[int, str]:
    """Run a command as one of several processes, of which one complains for all.

    Args:
        run: the command; returns its exit code and what it has to complain about.

    Returns:
        The exit code, and what this process should print: as a rule nothing, except on rank 0.
    """
    struck: list[int] = []
    ranks: Ranks | None = None
    process = os.getpid()

    def strike(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            return  # a worker that was forked a moment ago: the rank was struck too, and ends it
        if would_be_lost(frame):
            threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
            return
        # Once: torchrun may send another while this one is dealt with.
        if not struck and (ranks is None or ranks.ended is None):
            struck.append(number)
            if hasattr(signal, "SIGCHLD"):  # the workers were struck too; no need to say so
                signal.signal(signal.SIGCHLD, _overlook)
            raise KeyboardInterrupt

    for each in _SIGNALS:
        signal.signal(each, strike)
    try:
        ranks = Ranks.from_environment()
        if ranks is None:
            raise FailureError("torch.distributed is not available in this build of torch")
        ranks.say("here")
        code, complaint = run(ranks)
    except KeyboardInterrupt:
        code, complaint = 1, "interrupted"
    except FailureError as error:
        code, complaint = 1, str(error)
    finally:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
    return (code, complaint) if ranks is None else _settled(ranks, code, complaint, struck)


def _overlook(number: int, frame: object) -> None:
    """For a signal that does not matter any more."""


def _settled(ranks: Ranks, code: int, complaint: str, struck: list[int]) -> tuple[int, str]:
    """Agree on who prints what."""
    if not complaint:
        return code, ""
    error = InvalidArgumentError if code == 2 else FailureError
    ranks.end(KeyboardInterrupt() if struck else error(complaint))
    ending = ranks.ended
    if not ranks.first:
        _wait_for_rank_0(ranks)
        return code, complaint if ending is not None and ending.kind == "lost" else ""
    with suppress(FailureError):
        ranks.say("heard")
    if struck and ending is not None and ending.kind != "interrupted":
        # Another rank has failed, and torchrun ended this one before it took notice.
        return 2 if ending.kind == "wrong" else 1, str(ending.error())
    if struck == [signal.SIGTERM]:
        complaint = (
            "ended by SIGTERM, which torchrun also sends when a rank has died; the same command "
            "goes on where it was"
        )
    return code, complaint


def _wait_for_rank_0(ranks: Ranks) -> None:
    """Who leaves with an error before rank 0 has heard of it may take it along, under torchrun."""
    began = time.monotonic()
    limit = float(os.environ.get("SECATEURS_TIMEOUT", TIMEOUT))
    with suppress(FailureError):
        while not ranks.heard("here", 0) and time.monotonic() - began < limit:
            time.sleep(0.05)
        began = time.monotonic()
        while not ranks.heard("heard", 0) and time.monotonic() - began < _HEARING_SECONDS:
            time.sleep(0.05)


def in_turn(ranks: Ranks | None, load: Callable[[], T]) -> T:
    """Load what may be downloaded or trained on first use: one process a machine, rank 0 first."""
    if ranks is None:
        return load()
    leader = ranks.rank - local_rank(ranks)
    if not ranks.first:
        ranks.hear("loaded", 0 if leader == ranks.rank else leader)
    loaded = load()
    ranks.say("loaded")
    return loaded


def local_rank(ranks: Ranks) -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", ranks.rank))


def ranks_here() -> int:
    """How many ranks share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def own_device(ranks: Ranks, device: torch.device) -> torch.device:
    """The accelerator of this rank, where the device is one without a number.

    Raises:
        InvalidArgumentError: there are more ranks than accelerators on this machine.
    """
    if device.type == "cpu" or str(device) != device.type:
        return device
    number, there = local_rank(ranks), torch.accelerator.device_count()
    if number >= there:
        raise InvalidArgumentError(
            f"{ranks_here()} ranks on a machine with {there} {device.type} device(s): write "
            f"torchrun --nproc-per-node {there}, or --device cpu, or --device {device.type}:0 to "
            "share one"
        )
    torch.accelerator.set_device_index(number)
    return torch.device(device.type, number)


def from_rank_0(ranks: Ranks | None, model: nn.Module, differentiate: Callable[[], str]) -> str:
    """Gradients that are the same on all ranks: rank 0 computes them, the others receive them.

    Args:
        ranks: the ranks, if any.
        model: gets them.
        differentiate: leaves gradients in the model and says where they come from.

    Returns:
        What ``differentiate`` said.
    """
    if ranks is None:
        return differentiate()
    named = dict(model.named_parameters())
    if ranks.first:
        text = differentiate()
        ranks.say("gradients", [text, [n for n, p in named.items() if p.grad is not None]])
        for rank in range(1, ranks.size):
            ranks.hear("ready for gradients", rank)
    text, names = ranks.hear("gradients", 0)
    ranks.say("ready for gradients")
    dist: Any = torch.distributed
    try:
        dist.init_process_group(
            "gloo", store=ranks.shelf("gloo"), rank=ranks.rank, world_size=ranks.size
        )
        for name in names:
            _broadcast(named[name])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise FailureError(f"cannot send the gradients from rank 0 to others: {reason}") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return text


def _broadcast(parameter: nn.Parameter) -> None:
    dist: Any = torch.distributed
    parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    here = parameter.grad.cpu().contiguous()
    dist.broadcast(here, 0)
    parameter.grad.copy_(here)
