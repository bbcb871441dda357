"""Start ranks as real processes, let each run the same checks, and collect what failed."""

import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Check = Callable[[int, int, Path], None]
"""Takes the rank, the number of ranks, and a folder that all ranks share."""


def run_on_ranks(checks: Sequence[Check], ranks: int, folder: Path, **environment: str) -> None:
    """Run checks in ``ranks`` processes; what failed lies in ``folder`` afterwards.

    A rank that ends itself does not end the others.
    """
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), **environment}
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=_run, args=(rank, ranks, list(checks), folder, settings))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        if process.is_alive():
            process.kill()
            (folder / f"hung-{process.pid}").touch()


def failures_of(check: Check, ranks: int, folder: Path) -> str:
    """What went wrong with a check, on any rank; empty if every rank passed it."""
    texts: list[str] = []
    for rank in range(ranks):
        file = folder / f"{check.__name__}-{rank}.txt"
        text = file.read_text() if file.exists() else "did not come to an end"
        texts += [f"rank {rank}: {text}"] if text else []
    return "\n".join(texts)


def _run(
    rank: int, ranks: int, checks: list[Check], folder: Path, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    for check in checks:
        text, start = "", time.perf_counter()
        try:
            torch.manual_seed(0)
            check(rank, ranks, folder)
        except BaseException:
            text = traceback.format_exc()
        (folder / f"{check.__name__}-{rank}.txt").write_text(text)
        seconds = time.perf_counter() - start
        (folder / f"{check.__name__}-{rank}.seconds").write_text(f"{seconds:.2f}")
    os._exit(0)  # a lost rank may keep the others' goodbyes waiting


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
