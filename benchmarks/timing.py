"""Timing side by side: everything in one process, in turns, medians, ratios."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch


def medians(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call every function once a round and return each one's median seconds.

    In turns, so that a slow minute of the machine is everybody's slow minute. A function with a
    method ``prepare`` has it called before its clock starts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            getattr(function, "prepare", lambda: None)()
            finished(None)  # what another function left on the device is not this one's time
            began = time.perf_counter()
            finished(function())
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def finished(result: object) -> object:
    """Return ``result`` when the device is done with it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all but the first column are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine() -> str:
    """GPU if there is one, processor, threads and versions, for the head of a table."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else ())
        if line.startswith("model name")
    ]
    processor = names[0] if names else platform.processor()
    if torch.cuda.is_available():
        processor = f"{torch.cuda.get_device_name()}, {processor}"
    return (
        f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"python {platform.python_version()}"
    )
