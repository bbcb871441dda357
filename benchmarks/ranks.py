"""Claim: over ranks, selection sends some hundred kilobytes, however large the model is.

    python benchmarks/ranks.py                     1, 2 and 4 ranks, gloo, on this machine
    python benchmarks/ranks.py --elements 33554432 weights on each rank

Each rank holds its rows of one model of bfloat16 or float32 weights. Counted are the bytes that
each all_reduce is handed, by wrapping the one function that all go through; measured are the
seconds of `secateurs.global_prune`, and of an all_reduce of that size alone. A ring sends each byte
2 (N - 1) / N times a rank, in 2 (N - 1) steps: with the step's latency and the bandwidth that the
measurement at 4 ranks gives, and with those that are named for a cluster, follow bytes and seconds
for 1,024 ranks and 10^12 weights.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any

import torch
import torch.distributed as dist
from timing import machine, markdown
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import secateurs as sc
from secateurs.distributed.collectives import DistributedGroup

COLUMNS, LAYERS, ROUNDS = 4096, 8, 5
RANKS, ELEMENTS = 1024, 10**12
# A cluster's network as its makers give it: the latency of a step, and bytes a second and rank.
LATENCY, BANDWIDTH = 20e-6, 10e9


@dataclass
class Measured:
    """What one number of ranks gave: bytes handed to each all_reduce, and medians of seconds."""

    ranks: int
    sent: list[int]
    prune: float
    alone: float
    small: float
    large: float


def divided(rows: int, dtype: torch.dtype) -> nn.Module:
    """A model of which this rank holds ``rows`` rows of each layer."""
    torch.manual_seed(dist.get_rank())
    mesh, layers = init_device_mesh("cpu", (dist.get_world_size(),)), []
    for _ in range(LAYERS):
        layer = nn.Linear(1, 1, bias=False, device="meta")
        local = torch.randn(rows, COLUMNS).to(dtype)
        layer.weight = nn.Parameter(DTensor.from_local(local, mesh, [Shard(0)]))
        layers.append(layer)
    return nn.Sequential(*layers)


def alone(model: nn.Module) -> nn.Module:
    """The part of a model that lies here, as a model of its own."""
    layers = []
    for child in model.children():
        layer = nn.Linear(1, 1, bias=False, device="meta")
        layer.weight = nn.Parameter(child.weight.detach().to_local().clone())
        layers.append(layer)
    return nn.Sequential(*layers)


def measure(rank: int, ranks: int, port: int, rows: int, dtype: torch.dtype, out: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    model = divided(rows, dtype)
    single = alone(model)
    sent: list[int] = []
    reduce = DistributedGroup._reduce

    def counted(self: DistributedGroup, values: Any, operation: Any) -> Any:
        sent.append(values.nbytes)
        return reduce(self, values, operation)

    DistributedGroup._reduce = counted  # pyright: ignore[reportAttributeAccessIssue]
    sc.global_prune(model, 0.5, 0.5, seed=0)
    bytes_each = list(sent)
    whole = sc.sparsity(model).ratio
    assert abs(whole - 0.25) < 0.01, whole
    prune = median(lambda: sc.global_prune(model, 0.5, 0.5, seed=0))
    # Until the slowest rank is done, for that is what the others wait for.
    here = median(lambda: (sc.global_prune(single, 0.5, 0.5, seed=0), dist.barrier()))
    small, large = (torch.zeros(size // 8, dtype=torch.int64) for size in (64, 1 << 24))
    found = (median(lambda: dist.all_reduce(small), 50), median(lambda: dist.all_reduce(large)))
    if rank == 0:
        out.put(Measured(ranks, bytes_each, prune, here, *found))
    dist.barrier()
    dist.destroy_process_group()


def median(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    function()
    seconds: list[float] = []
    for _ in range(rounds):
        dist.barrier()
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def on_ranks(ranks: int, rows: int, dtype: torch.dtype) -> Measured:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out: Queue[Measured] = context.Queue()
    args = [(rank, ranks, port, rows, dtype, out) for rank in range(ranks)]
    processes = [context.Process(target=measure, args=each) for each in args]
    for process in processes:
        process.start()
    measured = out.get()
    for process in processes:
        process.join()
    return measured


def ring(ranks: int, sent: list[int], latency: float, bandwidth: float) -> tuple[float, float]:
    """Bytes that a rank sends, and seconds, by the formula of the ring."""
    traffic = sum(sent) * 2 * (ranks - 1) / ranks
    return traffic, len(sent) * 2 * (ranks - 1) * latency + traffic / bandwidth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 24, help="weights on each rank")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    rows = options.elements // COLUMNS // LAYERS
    elements = rows * COLUMNS * LAYERS
    cores = len(os.sched_getaffinity(0))
    print(f"{machine()}, {cores} cores, gloo, {elements:,} {options.dtype} weights on each rank\n")
    found = [on_ranks(ranks, rows, dtype) for ranks in (1, 2, 4)]
    last = found[-1]
    steps = 2 * (last.ranks - 1)
    latency = last.small / steps
    bandwidth = (1 << 24) * steps / last.ranks / max(last.large - last.small, 1e-9)
    head = ["ranks", "all_reduces", "KiB handed over", "KiB sent", "formula, ms", "alone, ms"]
    head += ["expected, ms", "measured, ms"]
    body: list[list[str]] = []
    for one in found:
        traffic, seconds = ring(one.ranks, one.sent, latency, bandwidth)
        expected = one.alone + seconds
        numbers = [len(one.sent), sum(one.sent) / 1024, traffic / 1024]
        numbers += [1e3 * s for s in (seconds, one.alone, expected, one.prune)]
        body.append([str(one.ranks), *(f"{n:,.0f}" for n in numbers)])
    print(markdown(head, body))
    print(f"\nOne step of a ring: {latency * 1e6:.0f} us and {bandwidth / 1e9:.2f} GB/s")
    print(f"Bytes of each all_reduce at {last.ranks} ranks: {last.sent}\n")
    share = ELEMENTS / RANKS
    local = found[0].alone * share / elements
    print(f"{RANKS} ranks, {ELEMENTS:.0e} weights: {share:.3g} on each rank, {local:.1f} s alone")
    for name, pair in {"as here": (latency, bandwidth), "cluster": (LATENCY, BANDWIDTH)}.items():
        traffic, seconds = ring(RANKS, last.sent, *pair)
        print(f"  {name}: a rank sends {traffic / 1024:,.0f} KiB in {seconds:.3f} s")
    gathered = ELEMENTS * dtype.itemsize
    print(f"  gathering the weights instead: {gathered / 1e12:.0f} TB to every rank")


if __name__ == "__main__":
    main()
