"""Run one command on the ranks that torchrun starts: messages, loading, and devices."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import nn

from secateurs.cli.interruption import Interruption
from secateurs.distributed.process_group import LostRankError
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation.ranks import Ranks

T = TypeVar("T")

_LONGEST_WAIT = timedelta(days=1)  # for a slow rank; one that has ended is noticed at once

_dist: Any = torch.distributed  # many of its public names are not in its stubs


def on_ranks(run: Callable[[Ranks], tuple[int, str]]) -> tuple[int, str]:
    """Run a command on this rank; only one rank prints why it failed.

    A rank that fails reports its error to torchrun, which then ends the others with SIGTERM.

    Args:
        run: the command; returns its exit code and the message of a failure.

    Returns:
        The exit code, and the message to print: "" if another rank prints one.
    """
    try:
        store, rank = _join()
    except FailureError as error:
        return 1, str(error)
    except KeyboardInterrupt:
        return 1, "interrupted"
    with Interruption(last=True, launched=True) as interruption:
        try:
            code, complaint = _recorded(run, interruption)
        except KeyboardInterrupt:
            code, complaint = 1, "interrupted"
    complaint = interruption.renamed(complaint)
    return code, complaint if complaint and _is_first_to_complain(store, rank) else ""


def _recorded(
    run: Callable[[Ranks], tuple[int, str]], interruption: Interruption
) -> tuple[int, str]:
    """Run a command, and write its message to the file in which torchrun expects the cause."""
    from torch.distributed.elastic.multiprocessing.errors import record

    code, complaint = 0, ""

    def recorded() -> None:
        nonlocal code, complaint
        code, complaint = run(Ranks(_dist.group.WORLD))
        if complaint and interruption.number is None:
            raise FailureError(complaint)

    with suppress(FailureError):
        record(recorded)()
    return code, complaint


def _join() -> tuple[Any, int]:
    """Join the process group; returns its store, and the number of this rank.

    Raises:
        FailureError: the other ranks cannot be reached, or torch has no torch.distributed.
    """
    if not _dist.is_available():
        raise FailureError("torch.distributed is not available in this build of torch")
    try:
        store, rank, size = next(_dist.rendezvous("env://"))
        _dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LostRankError(
            f"rank {os.environ['RANK']} cannot reach the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {reason}"
        ) from error
    return store, rank


def _is_first_to_complain(store: Any, rank: int) -> bool:
    try:
        return store.compare_set("secateurs/complaint", "", str(rank)) == str(rank).encode()
    except _dist.DistError:  # torchrun has ended
        return True


def in_turn(ranks: Ranks, load: Callable[[], T]) -> T:
    """Load what may be downloaded: rank 0 first, then one rank of each machine, then the others.

    Raises:
        SecateursError: loading failed, on any rank.
    """
    mine = 0 if ranks.is_first else 1 if _local_rank(ranks) == 0 else 2
    loaded: list[T] = []
    for phase in range(3):
        with ranks.together():
            if phase == mine:
                loaded.append(load())
    return loaded[0]


def _local_rank(ranks: Ranks) -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", ranks.rank))


def ranks_here() -> int:
    """The number of ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def own_device(ranks: Ranks, device: torch.device) -> torch.device:
    """The device of this rank: an accelerator without a number gets one.

    Raises:
        InvalidArgumentError: there are more ranks than accelerators on this machine.
    """
    if ranks.size == 1 or device.type == "cpu" or str(device) != device.type:
        return device
    number, there = _local_rank(ranks), torch.accelerator.device_count()
    if number >= there:
        raise InvalidArgumentError(
            f"{ranks_here()} ranks on a machine with {there} {device.type} device(s): write "
            f"torchrun --nproc-per-node {there}, or --device cpu, or --device {device.type}:0 to "
            "share one"
        )
    torch.accelerator.set_device_index(number)
    return torch.device(device.type, number)


def from_rank_0(ranks: Ranks, model: nn.Module, differentiate: Callable[[], str]) -> str:
    """Compute gradients on rank 0, and send them to the others.

    Args:
        ranks: the ranks.
        model: the model that gets the gradients.
        differentiate: stores gradients in the model, and returns a text.

    Returns:
        The text, on all ranks.
    """
    text, names = "", list[str]()
    named = dict(model.named_parameters())
    with ranks.together():
        if ranks.is_first:
            text = differentiate()
            names = [name for name, each in named.items() if each.grad is not None]
    text, names = ranks.gather([text, names])[0]
    for name in names if ranks.size > 1 else ():
        parameter = named[name]
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad.copy_(ranks.broadcast(parameter.grad.contiguous()))
    return text
