"""Start ranks as real processes, let each run the same checks, and collect what failed."""

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Check = Callable[[int, int, Path], None]
"""Takes the rank, the number of ranks, and a folder that all ranks share."""


@dataclass(frozen=True)
class Stage:
    """Checks that the first so many ranks run together, in a process group of their own.

    Attributes:
        ranks: how many.
        checks: what they run, in order.
        timeout: seconds that a rank waits for the others.
    """

    ranks: int
    checks: Sequence[Check]
    timeout: int = 60


def run_on_ranks(stages: Sequence[Stage], folder: Path) -> None:
    """Run stages one after another in the same processes, which take seconds to start.

    What failed lies in ``folder`` afterwards. A rank that ends itself does not end the others.
    """
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=_run, args=(rank, stages, folder))
        for rank in range(max(stage.ranks for stage in stages))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(480)
        if process.is_alive():
            process.kill()
            (folder / f"hung-{process.pid}").touch()


def failures_of(check: Check, ranks: int, folder: Path) -> str:
    """What went wrong with a check, on any rank; empty if every rank passed it."""
    texts: list[str] = []
    for rank in range(ranks):
        file = _file(folder, check, ranks, rank, "txt")
        text = file.read_text() if file.exists() else "did not come to an end"
        texts += [f"rank {rank}: {text}"] if text else []
    return "\n".join(texts)


def _file(folder: Path, check: Check, ranks: int, rank: int, ending: str) -> Path:
    return folder / f"{check.__name__}-{rank}-of-{ranks}.{ending}"


def _run(rank: int, stages: Sequence[Stage], folder: Path) -> None:
    torch.set_num_threads(1)
    for number, stage in enumerate(stages):
        if rank >= stage.ranks:
            continue
        os.environ["SECATEURS_TIMEOUT"] = str(stage.timeout)
        store = _shared_store(rank, stage.ranks, folder / f"port-{number}")
        dist.init_process_group("gloo", store=store, rank=rank, world_size=stage.ranks)
        shared = folder / f"stage-{number}"
        shared.mkdir(exist_ok=True)
        for check in stage.checks:
            text, start = "", time.process_time()
            try:
                torch.manual_seed(0)
                check(rank, stage.ranks, shared)
            except BaseException:
                text = traceback.format_exc()
            _file(folder, check, stage.ranks, rank, "txt").write_text(text)
            seconds = f"{time.process_time() - start:.2f}"
            _file(folder, check, stage.ranks, rank, "seconds").write_text(seconds)
        dist.destroy_process_group()
    os._exit(0)  # a lost rank may keep the others' goodbyes waiting


def _shared_store(rank: int, ranks: int, file: Path) -> dist.TCPStore:
    """The store of a stage, on a port that rank 0 holds: a free one might be taken by others."""
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)
        written = file.with_suffix(".new")
        written.write_text(str(store.port))
        written.rename(file)
        return store
    end = time.monotonic() + 120
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"rank 0 did not begin: there is no {file}")
        time.sleep(0.02)
    return dist.TCPStore("127.0.0.1", int(file.read_text()), ranks, wait_for_workers=False)
