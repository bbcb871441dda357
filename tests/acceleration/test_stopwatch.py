import time
from collections.abc import Callable

import torch

from secateurs.acceleration.stopwatch import Stopwatch


def test_calls_that_are_slow_after_those_of_another_function_do_not_count() -> None:
    last = ""

    def spinning(name: str, first: float, later: float) -> Callable[[], None]:
        def spin() -> None:
            nonlocal last
            end = time.thread_time() + (later if name == last else first)
            last = name
            while time.thread_time() < end:
                pass

        return spin

    watch = Stopwatch(torch.device("cpu"), threads=1, rounds=5)
    seconds = watch({"dense": spinning("dense", 4e-3, 2e-4), "csr": spinning("csr", 4e-4, 4e-4)})
    assert seconds["dense"] < 0.75 * seconds["csr"]


def test_the_stopwatch_measures_the_dense_one_to_the_end() -> None:
    counts = dict.fromkeys(("dense", "fast"), 0)

    def count(name: str, size: int) -> Callable[[], object]:
        def run() -> None:
            counts[name] += 1
            sum(range(size))

        return run

    watch = Stopwatch(torch.device("cpu"), 1, rounds=5)
    seconds = watch({"dense": count("dense", 200_000), "fast": count("fast", 10)})
    assert seconds.keys() == counts.keys()
    assert counts["dense"] >= 7
